//! What a VM's processor use is expected to be.

use crate::snapshot::Vm;

/// Expected use over the horizon.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Expected {
    /// Mean, cores.
    pub mean: f64,
    /// Standard deviation around it, cores.
    pub deviation: f64,
}

/// Expects of a VM what it did.
pub(crate) fn expect(vm: &Vm, _sample_ms: u64, _horizon_ms: u64) -> Expected {
    let n = vm.cpu_history.len() as f64 + 1.0;
    let mean = (vm.cpu_history.iter().map(|&x| f64::from(x)).sum::<f64>() + vm.cpu_cores) / n;
    let square = (vm.cpu_history.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>()
        + (vm.cpu_cores - mean).powi(2))
        / n;
    Expected { mean, deviation: square.sqrt() }
}
