//! Guests of every template set that ships.
//!
//! One herd, from `examples/mpi-cluster`, carries most of them, since a Debian guest is dear under emulation; the set
//! `dump` has a machine of its own, which is given one disk more. `./x test` says by the environment what they are made
//! of: see `common`, and `ESTIVE_SETS_ROOT`, `ESTIVE_SETS_REFERENCE`, `ESTIVE_OPENRC_REFERENCE`.
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
mod common;

mod cluster;
mod dumped;
mod machine;
mod shut_down;

#[test]
fn every_set_does_what_it_says() {
    common::on_guests("cluster::inside_a_cluster");
}

#[test]
fn a_dumped_clone_boots_alone() {
    common::on_guests("dumped::inside_dumped");
}

#[test]
fn a_clone_with_a_state_is_shut_down_clean() {
    common::on_guests("shut_down::inside_shut_down");
}
