//! `estive image`: what a machine starts from that Estive does not start, over the network or from a disk.

use super::r#try::init_beside_us;
use crate::arguments::Global;
use crate::failure::{Failure, failed};
use crate::output::{self, Output, mib, plain, table};
use clap::{Args, ValueEnum};
use estive_boot::hardware::Hardware;
use estive_boot::loaders::Root;
use estive_exports::ExportError;
use estive_exports::image::{
    self, Compression, Contents, ImageOptions, Start, WrittenFile, names_of_this_machine,
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Names that are shown of a long list.
const SHOWN: usize = 6;

#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("where").args(["out", "disk"]).required(true).multiple(true),
    group = clap::ArgGroup::new("from").args(["reference", "kernel_tree"]).required(true).multiple(true)
)]
pub struct Image {
    /// A directory for PXE and iPXE: kernel, initramfs, command line, boot.ipxe, pxelinux.cfg/default.
    out: Option<PathBuf>,
    /// What the root is joined from, as on the kernel's command line (see docs/root-line.md).
    #[arg(long, value_name = "LINE")]
    root: String,
    /// A disk, too: one file for a stick or a disk, for BIOS and UEFI.
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
    /// The root, as a directory, that kernel, programs and firmware are taken from; / is this system.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Another directory with boot/ and lib/modules/, for the kernel.
    #[arg(long, value_name = "DIR")]
    kernel_tree: Option<PathBuf>,
    /// More words for the kernel, such as ip=dhcp.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    words: Vec<String>,
    /// The machines that drivers are taken for: any, virtual ones, or those with the devices of this one.
    #[arg(long, value_enum, default_value = "any")]
    hardware: HardwareChoice,
    /// How the initramfs is packed.
    #[arg(long, value_enum, default_value = "zstd")]
    compress: CompressChoice,
    /// estive-init, for the initramfs. Without it, the one beside this program.
    #[arg(long, env = "ESTIVE_INIT", value_name = "FILE")]
    init: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum HardwareChoice {
    Any,
    Virtual,
    This,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CompressChoice {
    Zstd,
    Xz,
    None,
}

/// What was written, and what is in it.
#[derive(Debug, Serialize)]
struct Made {
    command_line: String,
    directory: Option<PathBuf>,
    files: Vec<WrittenFile>,
    disk: Option<WrittenFile>,
    contents: Contents,
}

impl Image {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let made = tokio::task::spawn_blocking(move || self.make())
            .await
            .map_err(failed)??;
        match global.output {
            Output::Json => output::json(&made)?,
            Output::Table => output::print(&words(&made))?,
        }
        Ok(0)
    }

    fn make(self) -> Result<Made, Failure> {
        let text = self.root.strip_prefix("root=").unwrap_or(&self.root);
        let root = Root::parse(text).map_err(|problem| {
            Failure::impossible(format!("the root line:\n{}", problem.pointed()))
                .advice("docs/root-line.md has every loader with an example")
        })?;
        let init = self.init.clone().or_else(init_beside_us).ok_or_else(|| {
            Failure::impossible("estive-init is not beside this program")
                .advice("name it with --init, or build it: ./x test builds one")
        })?;
        let init = std::fs::read(&init)
            .map_err(|error| Failure::failed(format!("reading {}: {error}", init.display())))?;
        let hardware = match self.hardware {
            HardwareChoice::Any => Hardware::Any,
            HardwareChoice::Virtual => Hardware::Virtual,
            HardwareChoice::This => Hardware::With(names_of_this_machine()),
        };
        let words: Vec<&str> = self
            .words
            .iter()
            .flat_map(|w| w.split_whitespace())
            .collect();
        let kernel_tree = self.kernel_tree.as_deref().or(self.reference.as_deref());
        let start = image::prepare(&ImageOptions {
            root: &root,
            words: &words,
            // One of both is given.
            kernel_tree: kernel_tree.unwrap_or(Path::new("/")),
            reference: self.reference.as_deref(),
            hardware: &hardware,
            compression: match self.compress {
                CompressChoice::Zstd => Compression::Zstd,
                CompressChoice::Xz => Compression::Xz,
                CompressChoice::None => Compression::None,
            },
            init: &init,
        })
        .map_err(unfit)?;
        self.write(start)
    }

    fn write(self, start: Start) -> Result<Made, Failure> {
        // Neither is replaced when the other one cannot be.
        if let Some(out) = self.out.as_deref() {
            image::directory::is_replaceable(out).map_err(unfit)?;
        }
        // The disk first: it needs programs that may not be there.
        let disk = self
            .disk
            .as_deref()
            .map(|file| image::disk::write(&start, file));
        let disk = disk.transpose().map_err(unfit)?;
        let files = self
            .out
            .as_deref()
            .map(|out| image::directory::write(&start, out));
        let files = files.transpose().map_err(unfit)?;
        Ok(Made {
            command_line: start.command_line,
            directory: self.out,
            files: files.unwrap_or_default(),
            disk,
            contents: start.contents,
        })
    }
}

/// What is impossible as asked has an exit code of its own.
fn unfit(error: ExportError) -> Failure {
    let failure = failed(&error);
    match error {
        ExportError::InTheWay { .. }
        | ExportError::NoReference { .. }
        | ExportError::CannotUnpack { .. }
        | ExportError::ProgramMissing { .. } => Failure {
            code: estive_model::ExitCode::Impossible,
            ..failure
        },
        _ => failure,
    }
}

fn words(made: &Made) -> String {
    let rows: Vec<Vec<String>> = made
        .files
        .iter()
        .map(|file| {
            let name = made
                .directory
                .as_deref()
                .unwrap_or(Path::new(""))
                .join(&file.name);
            (name.display().to_string(), file)
        })
        .chain(made.disk.iter().map(|file| (file.name.clone(), file)))
        .map(|(name, file)| vec![name, size(file.size_bytes), file.sha256[..16].to_owned()])
        .collect();
    let mut text = table(&["file", "size", "sha256"], &rows);
    let Contents {
        kernel,
        initramfs_bytes,
        init_bytes,
        modules,
        programs,
        firmware,
        firmware_absent,
    } = &made.contents;
    let mut say = |what: &str, how: String| text.push_str(&format!("{what:<12}{how}\n"));
    say("line", plain(&made.command_line));
    say("kernel", plain(kernel));
    say(
        "initramfs",
        format!(
            "{} unpacked, init {}",
            mib(*initramfs_bytes),
            mib(*init_bytes)
        ),
    );
    let sum = |list: &[image::Named]| list.iter().map(|named| named.size_bytes).sum();
    say(
        "modules",
        format!("{}, {}", modules.len(), mib(sum(modules))),
    );
    if !programs.is_empty() {
        let names: Vec<&str> = programs.iter().map(|named| named.name.as_str()).collect();
        say(
            "programs",
            format!("{}: {}", mib(sum(programs)), some_of(&names)),
        );
    }
    if !firmware.is_empty() {
        say(
            "firmware",
            format!("{} files, {}", firmware.len(), mib(sum(firmware))),
        );
    }
    if !firmware_absent.is_empty() {
        let names: Vec<&str> = firmware_absent
            .iter()
            .map(|absent| absent.name.as_str())
            .collect();
        say(
            "absent",
            format!(
                "{} firmware files that drivers may ask for: {}",
                names.len(),
                some_of(&names)
            ),
        );
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        ..1_048_576 => output::kib(bytes),
        _ => mib(bytes),
    }
}

fn some_of(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| plain(name)).collect();
    let more = if names.len() > SHOWN {
        " … (--output json lists all)"
    } else {
        ""
    };
    format!("{}{more}", shown.join(" "))
}
