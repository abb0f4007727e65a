//! The modules of a reference's kernel, in an EROFS image: that of modules, or the sealed root where the root has them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use estive_boot::{Error, KernelModules, Result};
use estive_erofs::{Image, Inode, Kind};

/// Where modules are in an image whose top is `/lib/modules`, and in a root.
const PLACES: [&str; 3] = ["", "lib/modules", "usr/lib/modules"];

/// One kernel's directory in an image. It may be hostile: names are looked up, no link is followed.
#[derive(Debug)]
pub(crate) struct ImageModules {
    image: Image<File>,
    path: PathBuf,
    directory: Inode,
}

impl ImageModules {
    /// The modules of the kernel `release`; `None` where the image has none. Blocks.
    pub fn find(path: &Path, release: &str) -> Result<Option<Self>> {
        let wrong = |source| unread(path, source);
        let file = File::open(path).map_err(|source| wrong(source.into()))?;
        let image = Image::open(file).map_err(wrong)?;
        for place in PLACES {
            let parts = place.split('/').filter(|part| !part.is_empty());
            let directory = below(&image, image.root().map_err(wrong)?, parts.chain([release]));
            let Some(directory) = directory.map_err(wrong)? else {
                continue;
            };
            let list = below(&image, directory.clone(), ["modules.dep"].into_iter());
            if list.map_err(wrong)?.is_some() {
                let path = path.to_owned();
                return Ok(Some(Self {
                    image,
                    path,
                    directory,
                }));
            }
        }
        Ok(None)
    }
}

impl KernelModules for ImageModules {
    fn file(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        let wrong = |source| unread(&self.place(path), source);
        let parts = path.split('/').filter(|part| !part.is_empty());
        let found = below(&self.image, self.directory.clone(), parts).map_err(wrong)?;
        let Some(file) = found.filter(|found| found.kind == Kind::File) else {
            return Ok(None);
        };
        if file.size_bytes > limit_bytes {
            return Err(Error::TooLarge {
                path: self.place(path),
                limit_bytes,
            });
        }
        let mut bytes = vec![0; usize::try_from(file.size_bytes).unwrap_or(0)];
        self.image.read_at(&file, &mut bytes, 0).map_err(wrong)?;
        Ok(Some(bytes))
    }

    fn place(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }
}

fn unread(path: &Path, source: estive_erofs::Error) -> Error {
    Error::Read {
        path: path.to_owned(),
        source: io::Error::other(source),
    }
}

fn below<'a>(
    image: &Image<File>,
    top: Inode,
    parts: impl Iterator<Item = &'a str>,
) -> estive_erofs::Result<Option<Inode>> {
    let mut at = top;
    for part in parts {
        if at.kind != Kind::Directory {
            return Ok(None);
        }
        match image.list(&at)?.get(part.as_bytes()) {
            Some(nid) => at = image.inode(*nid)?,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}
