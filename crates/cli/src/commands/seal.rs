//! `estive seal`: a root, also the one that runs, becomes the image that clones share.

use crate::arguments::Global;
use crate::failure::{Failure, failed};
use crate::output::{self, Output, table};
use clap::Args;
use estive_exports::references::{self, Record};
use estive_exports::seal::{self as sealing, Action, Asked, SealOptions, Sealed, Stop};
use estive_exports::secrets::{self, Scan};
use estive_exports::{ExportError, diff};
use estive_model::ExitCode;
use std::path::{Path, PathBuf};

/// Lines of a kind that are shown to people; JSON has them all.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub struct Seal {
    /// The root: a directory, or / for the running system.
    root: PathBuf,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    wishes: Wishes,
    /// Name the reference, so that `estive reseal NAME` makes it anew in the same way.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Sign its manifest, without which no host takes it; else `estive authority sign` does.
    #[arg(long, value_name = "DIR")]
    authority: Option<PathBuf>,
    /// Seal nothing: print every rule and what it would keep out of this root.
    #[arg(long, conflicts_with_all = ["name", "authority"])]
    show_left_out: bool,
}

/// Where images are.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Directory of images and their manifests.
    #[arg(
        long = "out",
        visible_alias = "dir",
        env = "ESTIVE_REFERENCES",
        value_name = "DIR",
        default_value = "/var/lib/estive/references"
    )]
    pub dir: PathBuf,
}

/// What an image is to hold, and how the root is read.
#[derive(Debug, Clone, Args)]
pub struct Wishes {
    /// Leave this out too: a path from the root, with * and **; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    leave_out: Vec<String>,
    /// Keep this though a rule leaves it out, or it is another volume; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    keep: Vec<String>,
    /// A file of such rules: lines leave-out PATTERN, keep PATTERN, empty PATTERN.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Keep the times of modification; else the same tree gives the same bytes whenever it was made.
    #[arg(long)]
    keep_times: bool,
    /// Read the root itself, also where its file system could show it at one instant.
    #[arg(long)]
    no_snapshot: bool,
    /// How much of what its group has free a snapshot of a logical volume takes, in percent; thin ones take no such.
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = sealing::SNAPSHOT_SHARE_PERCENT,
        value_parser = clap::value_parser!(u8).range(1..=100)
    )]
    snapshot_share: u8,
    /// Do not look for secrets in what was sealed.
    #[arg(long)]
    no_scan: bool,
}

impl Wishes {
    fn asked(&self) -> Result<Vec<Asked>, Failure> {
        let mut asked = match &self.rules {
            Some(path) => sealing::read_rules(path).map_err(of_export)?,
            None => Vec::new(),
        };
        let words = [
            (Action::LeaveOut, &self.leave_out),
            (Action::Keep, &self.keep),
        ];
        for (action, patterns) in words {
            asked.extend(patterns.iter().map(|pattern| Asked {
                action,
                pattern: pattern.clone(),
            }));
        }
        Ok(asked)
    }

    fn options(&self) -> Result<SealOptions, Failure> {
        Ok(SealOptions {
            rules: self.asked()?,
            keep_times: self.keep_times,
            no_snapshot: self.no_snapshot,
            snapshot_share_percent: self.snapshot_share,
            ..SealOptions::default()
        })
    }
}

/// What was asked cannot be, or it failed.
pub fn of_export(error: ExportError) -> Failure {
    match error {
        ExportError::Pattern { .. }
        | ExportError::RuleLine { .. }
        | ExportError::MissingRoot { .. }
        | ExportError::EmptyRoot { .. }
        | ExportError::ReferenceName { .. }
        | ExportError::NoReferenceOfName { .. }
        | ExportError::NoReferenceLike { .. } => Failure::impossible(crate::failure::chain(&error)),
        error => failed(error),
    }
}

/// Runs what reads and writes much apart from the runtime.
pub async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(failed)?
        .map_err(of_export)
}

/// Seals apart from the runtime. A signal ends the seal in order; one that comes later ends the process as ever.
pub async fn sealed_apart<T: Send + 'static>(
    stop: Stop,
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, Failure> {
    let told = super::shutdown()?;
    let work = apart(work);
    tokio::pin!(work);
    let done = tokio::select! {
        done = &mut work => done,
        () = told.cancelled() => {
            stop.ask();
            work.await
        }
    };
    if told.is_cancelled() {
        return done.and(Err(of_export(ExportError::Stopped)));
    }
    tokio::spawn(async move {
        told.cancelled().await;
        std::process::exit(ExitCode::Failed.code().into());
    });
    done
}

impl Seal {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let options = self.wishes.options()?;
        if self.show_left_out {
            return self.show(&options, global).await;
        }
        if let Some(name) = &self.name {
            references::check_name(name).map_err(of_export)?;
        }
        let authority = open_authority(self.authority)?;
        let (root, dir) = (self.root.clone(), self.place.dir.clone());
        let with = options.clone();
        let sealed = sealed_apart(options.stop.clone(), move || {
            sealing::seal_with(&root, &dir, &with)
        })
        .await?;
        sign(authority.as_ref(), &sealed, &self.place.dir)?;
        if let Some(name) = self.name {
            let before = references::read(&self.place.dir, &name).ok();
            let record = Record {
                name,
                root: std::fs::canonicalize(&self.root).map_err(failed)?,
                rules: options.rules,
                keep_times: options.keep_times,
                no_snapshot: options.no_snapshot,
                snapshot_share_percent: options.snapshot_share_percent,
                digest: sealed.digest.clone(),
                before: before
                    .map(|record| record.digest)
                    .filter(|digest| *digest != sealed.digest),
            };
            references::write(&self.place.dir, &record).map_err(of_export)?;
        }
        let scan = scan(&sealed, self.wishes.no_scan).await?;
        match global.output {
            Output::Json => output::json(&as_json(&sealed, scan.as_ref())?)?,
            Output::Table => output::print(&as_text(&sealed, scan.as_ref()))?,
        }
        Ok(0)
    }

    async fn show(self, options: &SealOptions, global: &Global) -> Result<u8, Failure> {
        let (root, dir, asked) = (self.root, self.place.dir, options.rules.clone());
        let effects = apart(move || {
            let rules = sealing::rules_of(&root, Some(&dir), &asked)?;
            sealing::preview(&root, &rules)
        })
        .await?;
        match global.output {
            Output::Json => output::json(&effects)?,
            Output::Table => {
                let rows: Vec<Vec<String>> = effects
                    .into_iter()
                    .map(|effect| {
                        let first = effect.paths.first().cloned().unwrap_or_default();
                        vec![
                            action(effect.action).to_owned(),
                            effect.pattern,
                            effect.reason,
                            effect.names.to_string(),
                            output::kib(effect.bytes),
                            first,
                        ]
                    })
                    .collect();
                let headings = ["rule", "pattern", "why", "names", "files", "first"];
                output::print(&table(&headings, &rows))?;
            }
        }
        Ok(0)
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::LeaveOut => "leave out",
        Action::Empty => "empty",
        Action::Keep => "keep",
    }
}

pub fn open_authority(
    place: Option<PathBuf>,
) -> Result<Option<estive_api::authority::Authority>, Failure> {
    place
        .map(estive_api::authority::Authority::open)
        .transpose()
        .map_err(failed)
}

pub fn sign(
    authority: Option<&estive_api::authority::Authority>,
    sealed: &Sealed,
    dir: &Path,
) -> Result<(), Failure> {
    let Some(authority) = authority else {
        return Ok(());
    };
    let manifest = sealing::manifest_path(&sealed.path);
    super::authority::sign_manifest(authority, &manifest, dir)
}

pub async fn scan(sealed: &Sealed, not: bool) -> Result<Option<Scan>, Failure> {
    if not {
        return Ok(None);
    }
    let path = sealed.path.clone();
    apart(move || secrets::scan(&path)).await.map(Some)
}

pub fn as_json(sealed: &Sealed, scan: Option<&Scan>) -> Result<serde_json::Value, Failure> {
    let mut value = serde_json::to_value(sealed).map_err(failed)?;
    value["secrets"] = serde_json::to_value(scan).map_err(failed)?;
    Ok(value)
}

/// What was sealed, how, and what to look at.
pub fn as_text(sealed: &Sealed, scan: Option<&Scan>) -> String {
    let how = &sealed.consistency;
    let mut text = format!(
        "{}  {}\n{}\n",
        sealed.digest,
        output::mib(sealed.size_bytes),
        sealed.path.display()
    );
    let moment = if how.one_instant {
        "all of it as it stood at one instant"
    } else {
        "each file whole, not all of the same instant"
    };
    text += &format!(
        "read from: {}, in {} walks: {moment}\n",
        how.read_from, how.rounds
    );
    for note in &how.notes {
        text += &format!("{}\n", output::plain(note));
    }
    let names: u64 = sealed.left_out.iter().map(|rule| rule.names).sum();
    text += &format!(
        "left out: {names} names by {} rules; estive seal --show-left-out tells them\n",
        sealed.left_out.len()
    );
    if sealed.lost_xattrs > 0 {
        text += &format!(
            "{} extended attributes have no place in an image and are not in it\n",
            sealed.lost_xattrs
        );
    }
    lines(
        &mut text,
        "still changing",
        &how.changing,
        how.changing_count,
    );
    lines(&mut text, "torn, never was so", &how.torn, how.torn_count);
    if let Some(scan) = scan {
        let found: Vec<String> = scan
            .findings
            .iter()
            .map(|finding| format!("{}:{}: {}", finding.path, finding.line, finding.kind))
            .collect();
        lines(
            &mut text,
            "looks like a secret and is in it",
            &found,
            scan.count,
        );
    }
    text
}

fn lines(text: &mut String, what: &str, names: &[String], count: u64) {
    if count == 0 {
        return;
    }
    *text += &format!("{what}: {count}\n");
    for name in names.iter().take(SHOWN) {
        *text += &format!("  {}\n", output::plain(name));
    }
    if count > SHOWN as u64 {
        *text += &format!("  and {} more\n", count - SHOWN as u64);
    }
}

/// Changes in a few lines.
pub fn changes_in_text(changes: &[diff::Change], all: bool) -> String {
    let shown = if all { changes.len() } else { SHOWN };
    let mut text = String::new();
    for change in changes.iter().take(shown) {
        let line = match change {
            diff::Change::Added { path } => format!("+ {}", output::plain(path)),
            diff::Change::Removed { path } => format!("- {}", output::plain(path)),
            diff::Change::Changed { path, what } => {
                let words: Vec<&str> = what.iter().map(|what| what.word()).collect();
                format!("~ {}  {}", output::plain(path), words.join(","))
            }
        };
        text += &line;
        text.push('\n');
    }
    if changes.len() > shown {
        text += &format!("and {} more\n", changes.len() - shown);
    }
    text
}
