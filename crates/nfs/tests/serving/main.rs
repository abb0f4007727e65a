//! The server, asked by another hand's client: what it says of a tree, what it does to one, what it refuses.

#[macro_use]
mod client;
mod hostile;
mod quotas;
mod reading;
mod rights;
mod writing;
