//! Every loader of `root=` on real machines, with roots made by hand: a file of each layer is read, nothing is fetched.
//!
//! `./x test` sets `ESTIVE_KERNEL_TREE` (a directory with `boot` and `lib/modules`) and `ESTIVE_INIT` (the static
//! program). A part of the loaders has a file of its own here.

mod bed;
mod clone;
mod disks;
mod live;
mod local;
mod net;
mod rescue;
mod shared;
mod shutdown;
mod unpack;
