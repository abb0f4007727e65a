//! What LVM's tools are asked, and what they report.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use serde::Deserialize;

/// Beyond, what a tool says is nothing that a person or we would read.
const SAID_BYTES_MAX: u64 = 16 << 20;

/// The fields of one volume, by their names.
pub(super) type Row = BTreeMap<String, String>;

#[derive(Deserialize)]
struct Report {
    report: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    lv: Vec<Row>,
}

/// Runs one of LVM's tools to its end; its standard output.
///
/// It writes to memory and stands apart from our process group: neither our death nor a key pressed stops it where
/// the volume is suspended, and it never waits for us, who may wait for the volume.
///
/// # Errors
/// It is missing, or failed: what it says.
pub(super) fn lvm(words: &[&str]) -> Result<String, String> {
    let said = || {
        memfd_create("lvm", MemfdFlags::CLOEXEC)
            .map(File::from)
            .map_err(|errno| format!("memory for what lvm says: {errno}"))
    };
    let (mut output, mut complaint) = (said()?, said()?);
    let writer = |file: &File| file.try_clone().map_err(|error| error.to_string());
    let status = Command::new("lvm")
        .args(words)
        .stdin(Stdio::null())
        .stdout(writer(&output)?)
        .stderr(writer(&complaint)?)
        .process_group(0)
        .env("LC_ALL", "C")
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .status()
        .map_err(|error| format!("lvm (package lvm2): {error}"))?;
    if status.success() {
        return text(&mut output);
    }
    let complaint = last_line(&text(&mut complaint)?);
    let tool = words.first().copied().unwrap_or_default();
    Err(format!("{tool} failed ({status}): {complaint}"))
}

fn text(file: &mut File) -> Result<String, String> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.take(SAID_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| format!("what lvm said: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last of what is said that is no warning tells why.
fn last_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_warning = |line: &&str| line.starts_with("WARNING");
    let (warnings, others): (Vec<&str>, Vec<&str>) = lines.partition(is_warning);
    let last = others.last().or(warnings.last());
    last.copied().unwrap_or("it says nothing").to_owned()
}

/// These fields of a volume, or of all of a group.
pub(super) fn volumes(fields: &[&str], of: &str) -> Result<Vec<Row>, String> {
    let fields = fields.join(",");
    // Sizes in bytes, what is yes or no as 1 or 0.
    let words = [
        "lvs",
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "--binary",
        "--options",
        &fields,
        of,
    ];
    rows(&lvm(&words)?)
}

/// These fields of one volume.
pub(super) fn volume(fields: &[&str], of: &str) -> Result<Row, String> {
    let mut rows = volumes(fields, of)?;
    match rows.len() {
        1 => Ok(rows.remove(0)),
        count => Err(format!("lvs knows {count} volumes {of}")),
    }
}

fn rows(report: &str) -> Result<Vec<Row>, String> {
    let report: Report = serde_json::from_str(report)
        .map_err(|error| format!("what lvs reports cannot be read: {error}"))?;
    Ok(report.report.into_iter().flat_map(|part| part.lv).collect())
}

/// A field that must be there.
pub(super) fn field<'a>(row: &'a Row, name: &str) -> Result<&'a str, String> {
    let value = row.get(name);
    value
        .map(String::as_str)
        .ok_or_else(|| format!("lvs does not report {name}"))
}

/// A number that must be there.
pub(super) fn number<T: std::str::FromStr>(row: &Row, name: &str) -> Result<T, String> {
    let text = field(row, name)?;
    text.parse()
        .map_err(|_| format!("lvs reports {text:?} as {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report = r#"
            {
                "report": [
                    {
                        "lv": [
                            {"lv_name":"root", "vg_free_count":"31", "data_percent":"12.50", "pool_lv":""},
                            {"lv_name":"swap", "vg_free_count":"31", "data_percent":"", "pool_lv":"p"}
                        ]
                    }
                ]
                ,
                "log": [
                ]
            }
        "#;
        let rows = rows(report).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(number(&rows[0], "vg_free_count"), Ok(31_u64));
        assert_eq!(number(&rows[0], "data_percent"), Ok(12.5_f64));
        assert!(number::<f64>(&rows[1], "data_percent").is_err());
        assert_eq!(field(&rows[1], "pool_lv"), Ok("p"));
        assert!(field(&rows[1], "origin").is_err());
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for text in ["", "{}", "[]", r#"{"report": [{"lv": [{"a": 1}]}]}"#] {
            assert!(rows(text).is_err(), "{text}");
        }
        assert_eq!(rows(r#"{"report": [{}]}"#), Ok(Vec::new()));
    }

    #[test]
    fn a_tool_is_quoted_by_what_says_why() {
        let said = "  WARNING: the group is large\n  Volume group \"x\" not found\n\n";
        assert_eq!(last_line(said), "Volume group \"x\" not found");
        assert_eq!(last_line("  WARNING: alone\n"), "WARNING: alone");
        assert_eq!(last_line("\n"), "it says nothing");
    }
}
