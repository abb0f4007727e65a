//! Ordinary machines on this host: which image files they may have, and what lies there.

use crate::agent::Agent;
use crate::image_locks::{self, ImageProof};
use crate::image_marks::ImageMark;
use estive_api::Problem;
use estive_api::domain_xml::{HOST_BRIDGE, ImageDiskXml, ImagesXml};
use estive_beneath as beneath;
use estive_hypervisor::{FileId, is_written_when_opened};
use estive_model::{ImageDisk, ImageFile, ImageKernel, ImageSpec, Interface};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// What lies at a disk's path.
#[derive(Debug)]
pub(crate) struct Look {
    pub disk: ImageDiskXml,
    pub id: FileId,
    pub mark: ImageMark,
    /// Some agent shows by a lock that it has it, see [`image_locks`].
    pub is_claimed: bool,
    /// QEMU writes to it whatever the guest does.
    pub is_written_when_opened: bool,
}

impl Agent {
    /// Refuses a description whose files may not be had here, or are not here. Blocks.
    pub(crate) fn check_images(&self, xml: &ImagesXml) -> Result<(), Problem> {
        if let Some(interface) = &xml.interface
            && interface.bridge != HOST_BRIDGE
            && interface.bridge != self.config.bridge
        {
            return Err(Problem::impossible(format!(
                "{} wants the bridge {}, and domains of this host are joined to {}",
                xml.name, interface.bridge, self.config.bridge
            ))
            .advice(format!("write bridge='{HOST_BRIDGE}' for the host's own")));
        }
        for path in xml.paths() {
            self.open_image(path)?;
        }
        Ok(())
    }

    /// Refuses to take a domain in whose files are not the ones that its source has; says which they are. Blocks.
    pub(crate) fn prove_images(
        &self,
        xml: &ImagesXml,
        proofs: &[ImageProof],
    ) -> Result<Vec<FileId>, Problem> {
        let refused = |path: &str, why: &str| {
            Problem::impossible(format!(
                "{} cannot be moved to {}: {why} {path}",
                xml.name, self.config.name
            ))
            .advice(
                "put the image on storage that both hosts mount at this path, with locks that both see (NFS 4, or 3 without \
                 nolock), or its data into a volume; or stop the domain and define it there",
            )
        };
        let mut proven = Vec::new();
        for path in xml.paths() {
            let Some(proof) = proofs.iter().find(|proof| proof.path == path) else {
                return Err(refused(
                    path,
                    "its source does not show that it has it open now:",
                ));
            };
            let file = self.open_image(path)?;
            match image_locks::shows(&file, proof) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(refused(
                        path,
                        "what lies there is not, or cannot be told to be, the file that its source has at",
                    ));
                }
                Err(error) => {
                    return Err(refused(path, &format!("locks cannot be seen ({error}) of")));
                }
            }
            proven.push(FileId::of(&file).map_err(|error| refused(path, &error.to_string()))?);
        }
        Ok(proven)
    }

    /// Looks at the images of all disks. Storage that is gone is waited for, by nobody else.
    pub(crate) async fn look_at_images(&self, xml: &ImagesXml) -> Result<Vec<Look>, Problem> {
        let (allowed, disks, name) = (
            self.config.images.clone(),
            xml.disks.clone(),
            xml.name.clone(),
        );
        let look = move |disk: ImageDiskXml| {
            let file = open_allowed(&allowed, &disk.path)?;
            let look = || -> io::Result<Look> {
                Ok(Look {
                    id: FileId::of(&file)?,
                    mark: ImageMark::of(&disk.path, &file.metadata()?),
                    is_claimed: image_locks::is_claimed(&file)?,
                    is_written_when_opened: is_written_when_opened(disk.format, &file)?,
                    disk: disk.clone(),
                })
            };
            look().map_err(|error| {
                Problem::failed(format!(
                    "could not look at {} of {name}: {error}",
                    disk.path
                ))
            })
        };
        blocking(move || disks.into_iter().map(look).collect()).await
    }

    /// Opens what lies at a path. Blocks.
    pub(crate) fn open_image(&self, path: &str) -> Result<File, Problem> {
        open_allowed(&self.config.images, path)
    }
}

/// Work that waits for files, away from everybody else's.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Problem::failed(format!("the work was cut short: {error}"))))
}

/// The hypervisor's view of an ordinary machine.
pub fn spec(
    xml: &ImagesXml,
    allowed: &[PathBuf],
    bridge: &str,
    tap: String,
) -> Result<ImageSpec, Problem> {
    let file = |path: &String| find(allowed, path);
    let kernel = match &xml.kernel {
        Some(boot) => Some(ImageKernel {
            kernel: file(&boot.kernel)?,
            initrd: boot.initrd.as_ref().map(file).transpose()?,
            command_line: boot.command_line.clone(),
        }),
        None => None,
    };
    let disk = |disk: &ImageDiskXml| {
        Ok(ImageDisk {
            file: file(&disk.path)?,
            format: disk.format,
            read_only: disk.read_only,
            discard: disk.discard,
            serial: disk.serial.clone(),
        })
    };
    Ok(ImageSpec {
        name: xml.name.clone(),
        uuid: xml.uuid.clone(),
        memory_mib: xml.memory_mib,
        cpus: xml.cpus,
        kernel,
        disks: xml.disks.iter().map(disk).collect::<Result<_, Problem>>()?,
        interface: xml.interface.as_ref().map(|interface| Interface {
            mac: interface.mac.clone(),
            bridge: bridge.to_owned(),
            tap,
        }),
    })
}

/// The allowed directory that a path lies beneath, the longest of them.
fn find(allowed: &[PathBuf], path: &str) -> Result<ImageFile, Problem> {
    let beneath = allowed.iter().filter_map(|top| {
        let rest = Path::new(path).strip_prefix(top).ok()?.to_str()?;
        (!rest.is_empty()).then_some((top, rest))
    });
    match beneath.min_by_key(|(_, rest)| rest.len()) {
        Some((top, rest)) => Ok(ImageFile {
            top: top.clone(),
            path: rest.to_owned(),
        }),
        None => Err(Problem::refused(format!(
            "{path} is beneath no directory that this host allows images in"
        ))
        .advice(
            "write the directory into images: of the agent's configuration and restart the agent",
        )),
    }
}

/// Opens what lies at a path beneath what is allowed. Blocks.
pub(crate) fn open_allowed(allowed: &[PathBuf], path: &str) -> Result<File, Problem> {
    open(&find(allowed, path)?)
}

/// Through no link; a plain file.
fn open(image: &ImageFile) -> Result<File, Problem> {
    let top = beneath::open_top(&image.top);
    let file = top
        .and_then(|top| beneath::open_file(top, &image.path))
        .map_err(io::Error::from)
        .map(File::from);
    let failed = |why: String| {
        Problem::impossible(format!("{image} cannot be had on this host: {why}")).advice(
            "is it there, a plain file, through no link and on the file system of its directory in images:?",
        )
    };
    let file = file.map_err(|error| failed(error.to_string()))?;
    match file.metadata().map(|meta| meta.is_file()) {
        Ok(true) => Ok(file),
        Ok(false) => Err(failed("it is not a plain file".into())),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_beneath_an_allowed_directory_is_found() {
        let allowed = [PathBuf::from("/srv/images"), "/srv/images/a".into()];
        let found = find(&allowed, "/srv/images/a/disk").unwrap();
        assert_eq!(
            (found.top.to_str(), found.path.as_str()),
            (Some("/srv/images/a"), "disk")
        );
        for path in ["/srv/imagesx/disk", "/srv/images", "/etc/shadow"] {
            let error = find(&allowed, path).unwrap_err();
            assert!(error.error.contains("allows images in"), "{error}");
        }
        assert!(find(&[], "/srv/images/a").is_err());
    }
}
