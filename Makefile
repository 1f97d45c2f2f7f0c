# What a person types. All needs root or sudo; everything it needs is installed by `make setup`, which the others call.
#
#   make run                            a virtual rack; HOSTS=3 FIRMWARE=bios|uefi|mixed VMS=3 PORT=8443
#   make run IFACE=enp3s0               the appliance on a real interface; DHCP=proxy beside another DHCP server
#   make test                           everything; SEED=n repeats a run of the simulated rack, and draws other cases in property tests
#   make build | page | image           parts: release programs, the operator's page, dom0 and guest images
#   make trial-faults                   server and agents killed at every step of a move, and other faults: half an hour or more; FROM=name UNTIL=name POINTS=part,part
#   make trial-hour                     an hour without the server, then ten minutes without the appliance; SERVER_AWAY_S=n APPLIANCE_AWAY_S=n, seconds
#   make bench-boot | bench-migrate | bench-balancer | bench-serve
#   make bench-rack                     the simulated rack at scale: 200 hosts, 2,000 VMs, 10,000 moves, 500 failures; SEED=n repeats a run
#   make clean

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: run test build page image setup clean bench-boot bench-migrate bench-balancer bench-serve bench-rack trial-faults trial-hour

export HOSTS FIRMWARE VMS PORT DHCP SEED SEEDS FROM UNTIL POINTS SERVER_AWAY_S APPLIANCE_AWAY_S TSUBAME_ACCEL

setup:
	@tests/make/setup

page: setup
	@tests/make/page

build: page
	@tests/make/programs release

image: page
	@tests/make/image dom0 guest

run: page
	@tests/make/run $(IFACE)

test:
	@tests/make/test

bench-boot bench-migrate: page
	@tests/make/bench $@

bench-serve: page
	@tests/make/bench-serve

trial-hour: page
	@tests/make/trial hour

trial-faults: page
	@tests/make/trial faults

bench-rack:
	SCALE=full cargo test -p tests --test simulated_rack -- --nocapture

bench-balancer:
	@tests/make/setup ganeti-htools
	cargo bench -p balancer

clean:
	cargo clean
	rm -rf .cache bootserver/web/dist bootserver/web/node_modules
