//! Reading a root whole: from a snapshot where one can be made and stays sound, else itself until it holds still.

use std::path::Path;

use estive_erofs::DataArea;

use super::capture;
use super::kept::Temporary;
use super::mapped::Mapped;
use super::notes::Notes;
use super::round::{self, Known, Live, Roots, Round};
use super::rules::Rules;
use super::signature::now;
use super::snapshot::Snapshot;
use super::{SealOptions, open_root};
use crate::ExportError;

/// A root is walked again until nothing changes between two walks, or so often in all.
const ROUNDS: usize = 5;

/// So much is read a second time, for files that change: more would cost more time and room than the root.
const AGAIN_BYTES: u64 = 2 << 30;

/// What was read.
pub(super) struct Read {
    /// With the data of all files.
    pub image: Temporary,
    pub round: Round,
    pub rounds: usize,
    pub one_instant: bool,
    /// `live`, or the kind of the snapshot.
    pub from: &'static str,
}

impl Read {
    /// Reads `root`, its data into a new file in `out_dir`.
    pub fn of(
        root: &Path,
        rules: &Rules,
        out_dir: &Path,
        options: &SealOptions,
        notes: &Notes,
    ) -> Result<Self, ExportError> {
        let live = open_root(root)?;
        let beside = Live {
            root: live
                .try_clone()
                .map_err(ExportError::io("reading the root", root))?,
            since: now(),
        };
        if !options.no_snapshot
            && let Some(snapshot) = Snapshot::of(root, &live, options.snapshot_share_percent, notes)
        {
            match Self::of_snapshot(&snapshot, beside, rules, out_dir, options)? {
                Ok(read) => return Ok(read),
                Err(why) => notes.add(format!(
                    "the snapshot was given up, the root itself was read: {why}"
                )),
            }
        }
        let roots = Roots {
            top: live,
            live: None,
        };
        Self::of_roots(&roots, "live", rules, out_dir, options)
    }

    /// What was read, or why that may be wrong.
    fn of_snapshot(
        snapshot: &Snapshot,
        live: Live,
        rules: &Rules,
        out_dir: &Path,
        options: &SealOptions,
    ) -> Result<Result<Self, String>, ExportError> {
        let top = match snapshot.open() {
            Ok(top) => top,
            Err(why) => return Ok(Err(why)),
        };
        let roots = Roots {
            top,
            live: Some(live),
        };
        let read = Self::of_roots(&roots, snapshot.kind(), rules, out_dir, options);
        options.stop.check()?;
        // One that ran full gives errors, or what it should not: neither counts.
        match snapshot.check() {
            Ok(()) => read.map(Ok),
            Err(why) => Ok(Err(why)),
        }
    }

    fn of_roots(
        roots: &Roots,
        from: &'static str,
        rules: &Rules,
        out_dir: &Path,
        options: &SealOptions,
    ) -> Result<Self, ExportError> {
        let image = Temporary::new(out_dir)?;
        let clone = Temporary::new(out_dir)?;
        let mut data = DataArea::new(&image.file);
        let mut into = capture::Into {
            data: &mut data,
            mapped: &Mapped::look(),
            clone: Some(&clone.file),
            keep_times: options.keep_times,
            stop: &options.stop,
            again_bytes: AGAIN_BYTES,
        };
        let read = until_still(rules, roots, &mut into);
        // Where it was stopped within a file, that file is not what is wrong.
        options.stop.check()?;
        let (round, rounds, one_instant) = read?;
        Ok(Self {
            image,
            round,
            rounds,
            one_instant,
            from,
        })
    }
}

/// Walks until two walks see the same, a snapshot once; gives the last one, how many there were, and whether all of it
/// stood so at one instant.
fn until_still(
    rules: &Rules,
    roots: &Roots,
    into: &mut capture::Into,
) -> Result<(Round, usize, bool), ExportError> {
    let mut known = Known::default();
    let mut shape = None;
    let mut rounds = 0;
    loop {
        rounds += 1;
        let round = round::round(rules, roots, &mut known, into)?;
        let same = shape == Some(round.shape) && round.changed.count == 0;
        let frozen = roots.live.is_some() && !round.went_live;
        // What was read beside a snapshot was so then, too, when it has not changed since before.
        let one_instant = round.torn.count == 0 && (frozen || same && !round.live_changed);
        if one_instant || same || rounds == ROUNDS {
            return Ok((round, rounds, one_instant));
        }
        shape = Some(round.shape);
    }
}
