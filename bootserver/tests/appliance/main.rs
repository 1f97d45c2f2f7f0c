//! The appliance over real sockets on loopback: rack, its task, store, CA, and the three HTTP services are the real ones.
//! DHCP's packets, TFTP's clients and tgtd's initiators are left to the virtual rack, as they need a network of their own.

mod agents;
mod backups;
mod boot_http;
mod dawdlers;
mod operators;
mod releases;
mod server;
