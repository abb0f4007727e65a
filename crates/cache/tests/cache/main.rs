//! A host's cache and its origins, in one process, read through NBD by our own client and by QEMU's.

mod bed;
mod clients;
mod faults;
mod gone;
mod hostile;
mod link;
mod names;
mod nbd_client;
mod reads;
mod strangers;
