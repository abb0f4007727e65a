//! What holds for every text from outside: tried by properties, by the fuzz target `fuzz/fuzz_targets/world.rs`, and over its
//! corpus in every run of the tests.

use crate::ganeti::Ganeti;
use crate::traces::Trace;
use crate::{PlanFile, World, WorldError};

/// Panics when something does not hold for a text, whatever it is.
pub fn hold(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match World::from_text(text) {
        Ok(world) => {
            let written = world.to_text();
            assert_eq!(World::from_text(&written).as_ref(), Ok(&world), "{written}");
            // What is promised and used adds up: nothing that was read overflows.
            let mut sum = crate::Reserved::NONE;
            world
                .domains
                .iter()
                .for_each(|domain| sum += domain.reserved);
        }
        Err(fault) => is_said_in_the_text(&fault, text),
    }
    match Ganeti::read(text, None) {
        Ok(cluster) => {
            let written = cluster.data(&cluster.world).expect("its own world fits");
            let again = Ganeti::read(&written, None).expect("what was written is read");
            assert_eq!(again.world, cluster.world, "{written}");
        }
        Err(fault) => is_said_in_the_text(&fault, text),
    }
    if let Ok(trace) = Trace::planetlab([("one", text)]) {
        assert!(!trace.planetlab_world(2).domains.is_empty());
    }
    if let Ok(file) = PlanFile::read(text) {
        let written = serde_json::to_string(&file).expect("it was read");
        assert_eq!(PlanFile::read(&written).as_ref(), Ok(&file));
    }
}

fn is_said_in_the_text(fault: &WorldError, text: &str) {
    if let WorldError::Text {
        line,
        column,
        what,
        advice,
    } = fault
    {
        let lines = text.split('\n').count();
        assert!((1..=lines.max(1)).contains(&(*line as usize)), "{fault}");
        let length = text
            .split('\n')
            .nth(*line as usize - 1)
            .map_or(0, |line| line.chars().count());
        assert!((1..=length + 1).contains(&(*column as usize)), "{fault}");
        assert!(!what.is_empty() && !advice.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::hold;
    use proptest::prelude::*;

    fn corpus() -> Vec<Vec<u8>> {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/world");
        let mut files: Vec<_> = (std::fs::read_dir(corpus).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
            .iter()
            .map(|file| std::fs::read(file).unwrap())
            .collect()
    }

    #[test]
    fn the_laws_hold_for_the_corpus_of_the_fuzz_target() {
        let corpus = corpus();
        assert!(corpus.len() > 5);
        corpus.iter().for_each(|file| hold(file));
    }

    proptest! {
        #[test]
        fn the_laws_hold_for_what_is_cut_and_joined(
            which in any::<prop::sample::Index>(),
            cuts in proptest::collection::vec(
                (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..12),
                1..5,
            ),
        ) {
            let corpus = corpus();
            let all: Vec<u8> = corpus.concat();
            let mut text = corpus[which.index(corpus.len())].clone();
            for (to, from, length) in cuts {
                let from = from.index(all.len());
                let piece = all[from..(from + length).min(all.len())].to_vec();
                let to = to.index(text.len() + 1);
                let end = (to + length / 2).min(text.len());
                text.splice(to..end, piece);
            }
            hold(&text);
        }
    }
}
