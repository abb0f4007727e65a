//! Vertices by what moving them gains, the best first, each at most once, and able to change.

const NOWHERE: u32 = u32::MAX;

/// A binary heap that knows where each vertex stands in it.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    heap: Vec<(i64, u32)>,
    place: Vec<u32>,
}

impl Queue {
    /// An empty one for vertices below `vertices`.
    pub fn new(vertices: usize) -> Self {
        Self {
            heap: Vec::new(),
            place: vec![NOWHERE; vertices],
        }
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        for &(_, vertex) in &self.heap {
            self.place[vertex as usize] = NOWHERE;
        }
        self.heap.clear();
    }

    /// The best, with what it gains.
    pub fn best(&self) -> Option<(i64, u32)> {
        self.heap.first().copied()
    }

    /// Whether it is in.
    pub fn holds(&self, vertex: u32) -> bool {
        self.place[vertex as usize] != NOWHERE
    }

    /// Puts it in, or changes what it gains.
    pub fn set(&mut self, vertex: u32, gain: i64) {
        let place = match self.place[vertex as usize] {
            NOWHERE => {
                self.heap.push((gain, vertex));
                self.place[vertex as usize] = self.heap.len() as u32 - 1;
                self.heap.len() - 1
            }
            place => {
                self.heap[place as usize].0 = gain;
                place as usize
            }
        };
        let place = self.up(place);
        self.down(place);
    }

    /// Takes it out, if it is in.
    pub fn remove(&mut self, vertex: u32) {
        let place = self.place[vertex as usize];
        if place == NOWHERE {
            return;
        }
        self.place[vertex as usize] = NOWHERE;
        let place = place as usize;
        let last = self.heap.pop();
        if let Some(last) = last.filter(|_| place < self.heap.len()) {
            self.heap[place] = last;
            self.place[last.1 as usize] = place as u32;
            let place = self.up(place);
            self.down(place);
        }
    }

    fn up(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let above = (place - 1) / 2;
            if !before(self.heap[place], self.heap[above]) {
                break;
            }
            self.swap(place, above);
            place = above;
        }
        place
    }

    fn down(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            if left >= self.heap.len() {
                return;
            }
            let right = left + 1;
            let better = if right < self.heap.len() && before(self.heap[right], self.heap[left]) {
                right
            } else {
                left
            };
            if !before(self.heap[better], self.heap[place]) {
                return;
            }
            self.swap(place, better);
            place = better;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.place[self.heap[one].1 as usize] = one as u32;
        self.place[self.heap[other].1 as usize] = other as u32;
    }
}

/// More gain first; among equals the smaller number, so that the order does not depend on how it came about.
fn before(one: (i64, u32), other: (i64, u32)) -> bool {
    one.0 > other.0 || (one.0 == other.0 && one.1 < other.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_comes_first_whatever_was_changed() {
        let mut queue = Queue::new(6);
        for (vertex, gain) in [(0, 3), (1, 9), (2, -4), (3, 9), (4, 0), (5, 7)] {
            queue.set(vertex, gain);
        }
        queue.set(1, -9);
        queue.remove(5);
        queue.set(2, 5);
        let mut out = Vec::new();
        while let Some((_, vertex)) = queue.best() {
            out.push(vertex);
            queue.remove(vertex);
        }
        assert_eq!(out, [3, 2, 0, 4, 1]);
        assert!(!queue.holds(3));
    }
}
