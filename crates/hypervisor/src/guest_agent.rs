//! Minimal calls of the QEMU guest agent, over its virtio-serial port.
