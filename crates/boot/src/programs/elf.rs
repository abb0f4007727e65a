//! What a program or library asks of the dynamic linker: its interpreter and its needs (ELF, gABI chapter 5).

use object::Endianness;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

/// How many libraries one file may ask for, and how many directories it may name.
const ENTRIES_MAX: usize = 512;
const STRING_BYTES_MAX: usize = 4096;

/// The dynamic section of one file, as far as it decides what else is loaded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Elf {
    pub interpreter: Option<String>,
    pub needed: Vec<String>,
    pub soname: Option<String>,
    /// Directories of `DT_RPATH`, which also count for what this file's libraries need.
    pub rpath: Vec<String>,
    /// Directories of `DT_RUNPATH`, which count for this file alone and end the reach of all `DT_RPATH`s.
    pub runpath: Option<Vec<String>>,
}

/// Why a file is not loaded.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A whole file for other machines: the linker passes over it and looks on.
    OtherMachine,
    Broken(String),
}

impl Unfit {
    pub fn reason(self) -> String {
        match self {
            Unfit::OtherMachine => "it is for another machine than x86-64".to_owned(),
            Unfit::Broken(reason) => reason,
        }
    }
}

type Result<T> = std::result::Result<T, Unfit>;
type Segments<'a> = &'a [ProgramHeader64<Endianness>];

/// Reads the dynamic section of a 64-bit file for x86-64.
pub fn parse(bytes: &[u8]) -> Result<Elf> {
    if bytes.starts_with(b"#!") {
        let line = bytes[2..].split(|byte| *byte == b'\n').next();
        let line: String = String::from_utf8_lossy(line.unwrap_or_default())
            .trim()
            .chars()
            .filter(|c| !c.is_control())
            .take(80)
            .collect();
        return Err(Unfit::Broken(format!(
            "it is a script of {line}, and what it calls cannot be known: put the program itself there"
        )));
    }
    if !bytes.starts_with(&elf::ELFMAG) {
        return broken("it is no ELF file");
    }
    if bytes.get(4) != Some(&elf::ELFCLASS64) {
        return Err(Unfit::OtherMachine);
    }
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(bad)?;
    let endian = header.endian().map_err(bad)?;
    if header.e_machine.get(endian) != elf::EM_X86_64 {
        return Err(Unfit::OtherMachine);
    }
    let segments = header.program_headers(endian, bytes).map_err(bad)?;
    let mut elf = Elf::default();
    for segment in segments {
        if let Some(path) = segment.interpreter(endian, bytes).map_err(bad)? {
            elf.interpreter = Some(text(path)?);
        }
    }
    for segment in segments {
        if let Some(entries) = segment.dynamic(endian, bytes).map_err(bad)? {
            elf.read(entries, segments, endian, bytes)?;
        }
    }
    Ok(elf)
}

impl Elf {
    fn read(
        &mut self,
        entries: &[elf::Dyn64<Endianness>],
        segments: Segments,
        endian: Endianness,
        bytes: &[u8],
    ) -> Result<()> {
        let entries = || {
            let end = |entry: &&elf::Dyn64<Endianness>| entry.d_tag(endian) != 0;
            entries.iter().take_while(end)
        };
        let value = |tag: u32| {
            let entry = entries().find(|entry| entry.d_tag(endian) == u64::from(tag));
            entry.map(|entry| entry.d_val(endian))
        };
        let strings = match (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) {
            (Some(address), Some(size)) => at_address(address, size, segments, endian, bytes)?,
            _ => &[],
        };
        for entry in entries() {
            let string = || {
                let start = usize::try_from(entry.d_val(endian)).unwrap_or(usize::MAX);
                let rest = strings.get(start..);
                let string = rest.and_then(|rest| rest.split(|byte| *byte == 0).next());
                string.map_or_else(|| broken("a name lies outside its table of names"), text)
            };
            match u32::try_from(entry.d_tag(endian)) {
                Ok(elf::DT_NEEDED) => self.needed.push(string()?),
                Ok(elf::DT_SONAME) => self.soname = Some(string()?),
                Ok(elf::DT_RPATH) => self.rpath = directories(&string()?)?,
                Ok(elf::DT_RUNPATH) => self.runpath = Some(directories(&string()?)?),
                _ => {}
            }
            if self.needed.len() > ENTRIES_MAX {
                return broken(&format!("it asks for more than {ENTRIES_MAX} libraries"));
            }
        }
        Ok(())
    }
}

/// What of the file is loaded at this address.
fn at_address<'a>(
    address: u64,
    size: u64,
    segments: Segments,
    endian: Endianness,
    bytes: &'a [u8],
) -> Result<&'a [u8]> {
    segments
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
        .find_map(|segment| {
            let within = address.checked_sub(segment.p_vaddr(endian))?;
            let end = within.checked_add(size)?;
            if end > segment.p_filesz(endian) {
                return None;
            }
            let start = usize::try_from(segment.p_offset(endian).checked_add(within)?).ok()?;
            bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
        })
        .map_or_else(|| broken("its table of names lies outside the file"), Ok)
}

fn directories(list: &str) -> Result<Vec<String>> {
    let list: Vec<String> = list.split(':').map(str::to_owned).collect();
    if list.len() > ENTRIES_MAX {
        return broken(&format!("it names more than {ENTRIES_MAX} directories"));
    }
    Ok(list)
}

fn text(bytes: &[u8]) -> Result<String> {
    let plain = |text: &&str| {
        !text.is_empty() && text.len() <= STRING_BYTES_MAX && !text.contains(char::is_control)
    };
    // An empty list of directories is one too.
    if bytes.is_empty() {
        return Ok(String::new());
    }
    match std::str::from_utf8(bytes).ok().filter(plain) {
        Some(text) => Ok(text.to_owned()),
        None => broken("a name in it is not plain text, or too long"),
    }
}

fn bad(error: object::read::Error) -> Unfit {
    Unfit::Broken(format!("it is a broken ELF file ({error})"))
}

fn broken<T>(reason: &str) -> Result<T> {
    Err(Unfit::Broken(reason.to_owned()))
}
