//! The init of roots that are watched: does what it is told on its console, one command a line, and says how that went.
//! Compiled by the test itself, statically. With `tree DIRECTORY` or `sum DIRECTORY` as its arguments it runs on any machine.

use std::ffi::{CString, c_char, c_ulong};
use std::fs::{self, File};
use std::io::{BufRead, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

// SAFETY: declared as in reboot(2), which takes no pointer, and mount(2) of glibc.
unsafe extern "C" {
    safe fn reboot(command: i32) -> i32;
    fn mount(source: *const c_char, target: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_char) -> i32;
}

/// FNV-1a: enough to see a difference that nobody made on purpose.
fn digest(mut file: File) -> std::io::Result<u64> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let size = file.read(&mut buffer)?;
        if size == 0 {
            return Ok(hash);
        }
        for byte in &buffer[..size] {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// All that can be told of an entry, in one line.
fn describe(path: &Path) -> std::io::Result<String> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let (letter, content) = if kind.is_dir() {
        ('d', String::new())
    } else if kind.is_symlink() {
        ('l', format!("{:?}", fs::read_link(path)?))
    } else if kind.is_file() {
        ('f', format!("{:016x}", digest(File::open(path)?)?))
    } else if kind.is_block_device() {
        ('b', String::new())
    } else if kind.is_char_device() {
        ('c', String::new())
    } else if kind.is_fifo() {
        ('p', String::new())
    } else {
        ('s', String::new())
    };
    // Sizes of directories are their file system's own.
    let size = if kind.is_dir() { 0 } else { meta.size() };
    Ok(format!(
        "{letter} {:o} {}:{} {size} links={} device={:x} {}.{:09} {content}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid(),
        meta.nlink(),
        meta.rdev(),
        meta.mtime(),
        meta.mtime_nsec(),
    ))
}

/// Everything below, in order.
fn tree(top: &Path, path: &Path, say: &mut dyn FnMut(String)) {
    let shown = path.strip_prefix(top).unwrap_or(path);
    match describe(path) {
        Ok(line) => say(format!("entry {shown:?} {line}")),
        Err(error) => say(format!("entry {shown:?} {error}")),
    }
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        return;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        tree(top, &path, say);
    }
}

fn text(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().replace('\n', "|"),
        Err(error) => format!("({})", error.raw_os_error().unwrap_or(0)),
    }
}

fn list(command: &str, top: &str) {
    let (mut count, mut hash) = (0, 0);
    tree(Path::new(top), Path::new(top), &mut |line| {
        if command == "tree" {
            println!("{line}");
        }
        count += 1;
        hash = line.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    });
    println!("sum {count} {hash:016x}");
}

/// Reads it until it is that; `(2)` is a file that is not there.
fn until(path: &str, wanted: &str) {
    let began = Instant::now();
    let mut seen = Vec::new();
    while began.elapsed() < Duration::from_secs(30) {
        let now = text(path);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        if seen.last().is_some_and(|last| last == wanted) {
            println!("seen {path} {wanted} after {} ms {seen:?}", began.elapsed().as_millis());
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("never {path} {wanted} {seen:?}");
}

/// The kernel's own client, of version 3.
fn mount_nfs(source: &str, place: &str, options: &str) -> std::io::Result<()> {
    fs::create_dir_all(place)?;
    let [source, place, kind, options] = [source, place, "nfs", options].map(|text| CString::new(text).unwrap());
    // SAFETY: four texts that end with a zero and live on.
    match unsafe { mount(source.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, options.as_ptr()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// What programs do to files, in a directory that is empty before and after.
fn work(place: &Path) -> std::io::Result<()> {
    let at = |name: &str| place.join(name);
    let mut file = File::options().create_new(true).read(true).write(true).open(at("one"))?;
    file.write_all(b"written")?;
    file.sync_all()?;
    assert_eq!(File::create_new(at("one")).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    // Open, and no name of it left: the client gives it one that nobody asks for.
    fs::remove_file(at("one"))?;
    file.write_all(b" on")?;
    file.seek(SeekFrom::Start(0))?;
    let mut read = String::new();
    file.read_to_string(&mut read)?;
    assert_eq!(read, "written on");
    drop(file);
    assert_eq!(fs::read_dir(place)?.count(), 0);
    fs::create_dir(at("directory"))?;
    fs::write(at("two"), "two")?;
    fs::write(at("three"), "three")?;
    let held = File::open(at("two"))?;
    fs::rename(at("three"), at("two"))?;
    assert_eq!(std::io::read_to_string(held)?, "two");
    assert_eq!(fs::read_to_string(at("two"))?, "three");
    fs::hard_link(at("two"), at("directory/again"))?;
    std::os::unix::fs::symlink("../two", at("directory/link"))?;
    assert_eq!(fs::read_to_string(at("directory/link"))?, "three");
    fs::set_permissions(at("two"), fs::Permissions::from_mode(0o6751))?;
    std::os::unix::fs::chown(at("two"), Some(33), Some(34))?;
    let meta = fs::metadata(at("directory/again"))?;
    assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (33, 34, 2));
    File::options().write(true).open(at("two"))?.set_len(2)?;
    assert_eq!(fs::read_to_string(at("two"))?, "th");
    // More than there may be: said at the latest when it is made lasting; then there is room again.
    let mut large = File::create(at("large"))?;
    let over = (0..64).try_for_each(|_| large.write_all(&[1; 1 << 16])).and_then(|()| large.sync_all());
    assert_eq!(over.unwrap_err().raw_os_error(), Some(122), "EDQUOT");
    drop(large);
    fs::remove_file(at("large"))?;
    fs::write(at("two"), vec![2; 1 << 16])?;
    assert_eq!(fs::read(at("two"))?, vec![2; 1 << 16]);
    fs::remove_file(at("two"))?;
    fs::remove_dir_all(at("directory"))
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, top] = &arguments[..] {
        return list(command, top);
    }
    println!("lister ready");
    let mut held: Option<File> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [command @ ("tree" | "sum"), top] => list(command, top),
            ["open", path] => {
                let mut file = File::open(path).unwrap();
                let mut begin = [0; 4];
                file.read_exact(&mut begin).unwrap();
                held = Some(file);
            }
            ["mount", source, place, options] => println!("mounted {:?}", mount_nfs(source, place, options)),
            ["work", place] => println!("worked {:?}", work(Path::new(place))),
            ["close"] => held = None,
            ["rest"] => match held.take().map(digest) {
                Some(Ok(digest)) => println!("rest {digest:016x}"),
                other => println!("rest {other:?}"),
            },
            ["append", path] => {
                let file = fs::OpenOptions::new().append(true).open(path);
                match file.and_then(|mut file| file.write_all(b"appended\n")) {
                    Ok(()) => println!("append {path} done"),
                    Err(error) => println!("append {path} {error}"),
                }
            }
            ["cat", path] => println!("cat {path} {}", text(path)),
            ["stat", path] => match describe(Path::new(path)) {
                Ok(line) => println!("stat {path} {line}"),
                Err(error) => println!("stat {path} {error}"),
            },
            ["until", path, wanted] => until(path, wanted),
            ["write", path, content] => println!("write {path} {:?}", fs::write(path, content)),
            ["off"] => {
                // LINUX_REBOOT_CMD_POWER_OFF
                reboot(0x4321_fedc);
            }
            _ => println!("what is {line:?}?"),
        }
        println!("done {line}");
    }
    println!("the console is closed");
    loop {
        std::thread::park();
    }
}
