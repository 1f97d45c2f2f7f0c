"""sushy-emulator whose systems are switched by a program, as ipmi_sim's are by its chassis_control.

    sushy_rack.py CONFIG

CONFIG is sushy-emulator's own, with SUSHY_EMULATOR_FAKE_SYSTEMS, and TSUBAME_CONTROL: the program. It is called as ipmi_sim calls
its own: `PROGRAM NAME get power` prints `power:0` or `power:1`; `PROGRAM NAME set power 0|1`; `PROGRAM NAME set boot pxe`.
Everything but that is sushy-emulator's: HTTPS, accounts, resources, what a client may ask.
"""

import subprocess
import sys

from sushy_tools import error
from sushy_tools.emulator import main
from sushy_tools.emulator.resources.systems import fakedriver


class Driver(fakedriver.FakeDriver):
    """A system has power when the program says so."""

    def _control(self, identity, *words):
        command = [self._config['TSUBAME_CONTROL'], self.name(identity), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise error.FishyError(f'{command}: {done.stderr.strip()}')
        return done.stdout.strip()

    def get_power_state(self, identity):
        return 'On' if self._control(identity, 'get', 'power') == 'power:1' else 'Off'

    def set_power_state(self, identity, state):
        if state in ('On', 'ForceOn'):
            self._control(identity, 'set', 'power', '1')
        elif state == 'ForceOff':
            self._control(identity, 'set', 'power', '0')
        else:
            raise error.NotSupportedError(f'{state} is not something that the tests ask for')

    def set_boot_device(self, identity, boot_source):
        super().set_boot_device(identity, boot_source)
        self._control(identity, 'set', 'boot', boot_source.lower())


if __name__ == '__main__':
    fakedriver.FakeDriver = Driver
    sys.argv = ['sushy-emulator', '--config', sys.argv[1], '--fake']
    sys.exit(main.main())
