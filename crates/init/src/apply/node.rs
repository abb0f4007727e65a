//! What stands at a path, and its print: one line by which two are told apart.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub type Xattrs = BTreeMap<String, Vec<u8>>;

/// What stands at a path. Times and numbers of inodes do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub what: What,
    /// Permission bits; those of a symbolic link are 0o777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub xattrs: Xattrs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Absent,
    File { bytes: u64, content: Content },
    Directory,
    Symlink(Vec<u8>),
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// Of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Sha256([u8; 32]),
    /// Larger than anything a layer has: not read, and equal to nothing but itself.
    Large,
}

impl Content {
    pub fn of(bytes: &[u8]) -> Content {
        Content::Sha256(Sha256::digest(bytes).into())
    }
}

impl Node {
    pub fn absent() -> Node {
        Node {
            what: What::Absent,
            mode: 0,
            uid: 0,
            gid: 0,
            xattrs: Xattrs::new(),
        }
    }

    pub fn is_directory(&self) -> bool {
        self.what == What::Directory
    }

    pub fn is_absent(&self) -> bool {
        self.what == What::Absent
    }

    /// A file that was not read.
    pub fn is_large(&self) -> bool {
        matches!(
            self.what,
            What::File {
                content: Content::Large,
                ..
            }
        )
    }

    pub fn print(&self) -> Print {
        Print(self.to_string())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match &self.what {
            What::Absent => return f.write_str("absent"),
            What::File { .. } => "file",
            What::Directory => "directory",
            What::Symlink(_) => "symlink",
            What::Character { .. } => "character",
            What::Block { .. } => "block",
            What::Fifo => "fifo",
            What::Socket => "socket",
        };
        write!(f, "{kind} {:04o} {}:{}", self.mode, self.uid, self.gid)?;
        match &self.what {
            What::File { bytes, content } => match content {
                Content::Sha256(digest) => write!(f, " {bytes} sha256:{}", hex(digest))?,
                Content::Large => write!(f, " {bytes} unread")?,
            },
            What::Symlink(target) => match std::str::from_utf8(target) {
                Ok(target) => write!(f, " {target:?}")?,
                Err(_) => write!(f, " {}", hex(target))?,
            },
            What::Character { major, minor } | What::Block { major, minor } => {
                write!(f, " {major}:{minor}")?;
            }
            _ => {}
        }
        if !self.xattrs.is_empty() {
            let mut hash = Sha256::new();
            for (name, value) in &self.xattrs {
                hash.update((name.len() as u64).to_le_bytes());
                hash.update(name);
                hash.update((value.len() as u64).to_le_bytes());
                hash.update(value);
            }
            write!(f, " xattrs:{}", hex(&hash.finalize()))?;
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A [`Node`] in one line; two are the same when their prints are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Print(String);

impl Print {
    pub fn absent() -> Print {
        Node::absent().print()
    }

    pub fn is_absent(&self) -> bool {
        self.0 == "absent"
    }

    pub fn is_directory(&self) -> bool {
        self.0.starts_with("directory ")
    }

    fn kind(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// What the clone did, that it is `self` and no longer `before`.
    pub fn difference(&self, before: &Print) -> String {
        if self.is_absent() {
            "removed in the clone".to_owned()
        } else if before.is_absent() {
            "made in the clone".to_owned()
        } else if self.kind() != before.kind() {
            format!(
                "a {} in the clone, a {} in the layer",
                self.kind(),
                before.kind()
            )
        } else {
            "changed in the clone".to_owned()
        }
    }
}
