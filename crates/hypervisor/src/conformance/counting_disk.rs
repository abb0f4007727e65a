//! The smallest ordinary machine: a raw disk whose boot sector, in real mode and by the firmware's own disk driver, counts
//! some 18 times a second: it writes the number N to sector N, waits until that is acknowledged, then shows `count N`.
//!
//! ```text
//! start:  cli; xor ax,ax; mov ds,ax; mov es,ax; mov ss,ax; mov sp,0x7c00; sti
//!         mov [0x7e00],dl                   ; the firmware's number of this disk
//!         mov [0x7e02],ax                   ; N
//! next:   inc word [0x7e02]; mov ax,[0x7e02]; mov [0x8000],ax; mov [lba],ax
//!         mov si,dap; mov dl,[0x7e00]; mov ax,0x4300; int 0x13; jc fail
//!         (print "count ", N in decimal, '\n' on COM1); hlt; jmp next
//! fail:   (print '!'); hlt; jmp fail
//! dap:    db 16,0; dw 1,0x8000,0
//! lba:    dq 0
//! ```

use std::io;
use std::path::Path;

/// Room for an hour of numbers.
const DISK_BYTES: u64 = 33 << 20;
const SECTOR_BYTES: usize = 512;

const BOOT_SECTOR: [u8; 142] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb, 0x88, 0x16, 0x00,
    0x7e, 0xa3, 0x02, 0x7e, 0xff, 0x06, 0x02, 0x7e, 0xa1, 0x02, 0x7e, 0xa3, 0x00, 0x80, 0xa3, 0x86,
    0x7c, 0xbe, 0x7e, 0x7c, 0x8a, 0x16, 0x00, 0x7e, 0xb8, 0x00, 0x43, 0xcd, 0x13, 0x72, 0x2d, 0xbe,
    0x77, 0x7c, 0xac, 0xe8, 0x2e, 0x00, 0x84, 0xc0, 0x75, 0xf8, 0xa1, 0x02, 0x7e, 0xbb, 0x0a, 0x00,
    0x31, 0xc9, 0x31, 0xd2, 0xf7, 0xf3, 0x52, 0x41, 0x85, 0xc0, 0x75, 0xf6, 0x58, 0x04, 0x30, 0xe8,
    0x12, 0x00, 0xe2, 0xf8, 0xb0, 0x0a, 0xe8, 0x0b, 0x00, 0xf4, 0xeb, 0xb8, 0xb0, 0x21, 0xe8, 0x03,
    0x00, 0xf4, 0xeb, 0xf8, 0x84, 0xc0, 0x74, 0x0e, 0x50, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74,
    0xfb, 0x58, 0xba, 0xf8, 0x03, 0xee, 0xc3, 0x63, 0x6f, 0x75, 0x6e, 0x74, 0x20, 0x00, 0x10, 0x00,
    0x01, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

/// Writes a fresh disk that counts.
pub fn make(path: &Path) -> io::Result<()> {
    let mut sector = [0; SECTOR_BYTES];
    sector[..BOOT_SECTOR.len()].copy_from_slice(&BOOT_SECTOR);
    sector[SECTOR_BYTES - 2..].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(path, sector)?;
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .set_len(DISK_BYTES)
}

/// Up to which number the disk has every one in its place.
pub fn holds(path: &Path) -> io::Result<u64> {
    let disk = std::fs::read(path)?;
    let numbers = disk.chunks(SECTOR_BYTES).skip(1).zip(1_u16..);
    let held = numbers.take_while(|(sector, number)| sector[..2] == number.to_le_bytes());
    Ok(held.count() as u64)
}

/// The highest number shown on a console whose log is at `path`; 0 if there is none.
pub fn shown(path: &Path) -> u64 {
    let log = std::fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    // The last line may be cut, and the first one after a move begins in the middle.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let numbers = whole
        .lines()
        .filter_map(|line| line.trim().strip_prefix("count ")?.parse().ok());
    numbers.max().unwrap_or(0)
}
