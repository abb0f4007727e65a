//! Which chunks to fetch before they are asked for. Pure: it sees the order in which a root's chunks are read.

use std::ops::Range;

/// A guest's kernel reads files of some MiB through; a boot jumps. So: the next one at once, more the longer it goes
/// straight on, as the page cache of Linux does.
const FIRST_WINDOW: usize = 1;
const LARGEST_WINDOW: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    last: Option<usize>,
    window: usize,
}

impl ReadAhead {
    /// Chunk `index` of `count` is read: which ones to have ready. Empty when it is the same as before.
    pub fn read(&mut self, index: usize, count: usize) -> Range<usize> {
        let before = self.last.replace(index);
        if before == Some(index) {
            return 0..0;
        }
        let straight_on = before.is_some_and(|before| before + 1 == index);
        self.window = match straight_on {
            true => (2 * self.window).min(LARGEST_WINDOW),
            false => FIRST_WINDOW,
        };
        let next = (index + 1).min(count);
        next..(next + self.window).min(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_while_it_goes_straight_on_and_ends_with_the_root() {
        let mut ahead = ReadAhead::default();
        let told: Vec<_> = [5, 5, 6, 7, 8, 9, 20, 97, 98, 99]
            .map(|index| ahead.read(index, 100))
            .into();
        assert_eq!(
            told,
            [
                6..7,
                0..0,
                7..9,
                8..12,
                9..17,
                10..18,
                21..22,
                98..99,
                99..100,
                100..100
            ]
        );
    }
}
