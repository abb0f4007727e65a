//! `estive-search DEPTH`: a search by alpha and beta through the game Connect Four, as work of whole numbers for the
//! benchmark `work`. The same depth visits the same positions on every machine; it prints how many, and the value.

use std::process::ExitCode;

const COLUMNS: u32 = 7;
/// A board is seven columns of seven bits: six places, and one above them that stays empty.
const COLUMN_BITS: u32 = 7;
const WON: i32 = 1000;

/// A position: the stones of who is to move, and all stones.
#[derive(Clone, Copy)]
struct Position {
    own: u64,
    all: u64,
}

impl Position {
    const EMPTY: Self = Self { own: 0, all: 0 };

    /// The place where a stone in `column` comes to lie.
    fn place(self, column: u32) -> Option<u64> {
        let bottom = 1 << (column * COLUMN_BITS);
        let place = (self.all + bottom) & (0x3f << (column * COLUMN_BITS));
        (place != 0).then_some(place)
    }

    /// After a stone was put there; the other one is to move.
    fn with(self, place: u64) -> Self {
        Self {
            own: self.own ^ self.all,
            all: self.all | place,
        }
    }

    /// Whether who has just moved has four in a row.
    fn is_won(self) -> bool {
        let stones = self.own ^ self.all;
        [1, COLUMN_BITS - 1, COLUMN_BITS, COLUMN_BITS + 1]
            .iter()
            .any(|step| {
                let pairs = stones & (stones >> step);
                pairs & (pairs >> (2 * step)) != 0
            })
    }
}

/// The value of `position` to who is to move, and the positions visited for it are added to `visited`.
fn value(position: Position, depth: u32, mut alpha: i32, beta: i32, visited: &mut u64) -> i32 {
    *visited += 1;
    if position.is_won() {
        return -WON - depth.cast_signed();
    }
    if depth == 0 {
        // Stones in the middle columns are worth most.
        let middle = 0x3f << (3 * COLUMN_BITS);
        let mine = (position.own & middle).count_ones();
        let theirs = ((position.own ^ position.all) & middle).count_ones();
        return mine.cast_signed() - theirs.cast_signed();
    }
    let mut best = None;
    for column in [3, 2, 4, 1, 5, 0, 6] {
        debug_assert!(column < COLUMNS);
        let Some(place) = position.place(column) else {
            continue;
        };
        let found = -value(position.with(place), depth - 1, -beta, -alpha, visited);
        best = best.max(Some(found));
        alpha = alpha.max(found);
        if alpha >= beta {
            break;
        }
    }
    best.unwrap_or(0)
}

fn main() -> ExitCode {
    let depth = std::env::args().nth(1).and_then(|word| word.parse().ok());
    let Some(depth @ 1..=42) = depth else {
        eprintln!("usage: estive-search DEPTH, of 1 to 42 moves");
        return ExitCode::from(2);
    };
    let mut visited = 0;
    let found = value(Position::EMPTY, depth, -2 * WON, 2 * WON, &mut visited);
    println!("value {found}, {visited} positions");
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(columns: &[u32]) -> Position {
        columns.iter().fold(Position::EMPTY, |position, column| {
            position.with(position.place(*column).expect("there is room"))
        })
    }

    #[test]
    fn four_in_a_row_is_won_in_every_direction() {
        assert!(after(&[0, 1, 0, 1, 0, 1, 0]).is_won());
        assert!(after(&[0, 0, 1, 1, 2, 2, 3]).is_won());
        assert!(after(&[0, 1, 1, 2, 2, 3, 2, 3, 3, 6, 3]).is_won());
        assert!(after(&[3, 2, 2, 1, 1, 0, 1, 0, 0, 6, 0]).is_won());
        // Over the top of one column into the next is no row.
        let stones = |all: u64| Position { own: 0, all };
        assert!(stones(0b11_1100).is_won());
        assert!(!stones(0b1011_1000).is_won());
    }

    #[test]
    fn a_win_in_one_move_is_seen() {
        let position = after(&[0, 1, 0, 1, 0, 1]);
        assert_eq!(
            value(position, 1, -2 * WON, 2 * WON, &mut 0),
            WON,
            "column 0 wins"
        );
    }

    #[test]
    fn a_full_column_takes_no_stone() {
        let position = after(&[4, 4, 4, 4, 4, 4]);
        assert_eq!(position.place(4), None);
        assert!(position.place(3).is_some());
    }
}
