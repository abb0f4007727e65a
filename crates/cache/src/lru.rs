//! Things in the order of their last use, with their weight in bytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

pub(crate) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by their last use; uses are numbered.
    order: BTreeMap<u64, K>,
    next_use: u64,
    total_bytes: u64,
}

struct Entry<V> {
    value: V,
    weight_bytes: u64,
    last_use: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> Lru<K, V> {
    pub fn new() -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            next_use: 0,
            total_bytes: 0,
        }
    }

    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// A use.
    pub fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.last_use);
        entry.last_use = self.next_use;
        self.order.insert(self.next_use, *key);
        self.next_use += 1;
        Some(entry.value.clone())
    }

    /// A use too; replaces what is there.
    pub fn insert(&mut self, key: K, value: V, weight_bytes: u64) {
        self.remove(&key);
        let entry = Entry {
            value,
            weight_bytes,
            last_use: self.next_use,
        };
        self.entries.insert(key, entry);
        self.order.insert(self.next_use, key);
        self.next_use += 1;
        self.total_bytes += weight_bytes;
    }

    pub fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.last_use);
            self.total_bytes -= entry.weight_bytes;
        }
    }

    /// Takes out what was not used for longest, until at most `limit_bytes` are left.
    pub fn shrink_to(&mut self, limit_bytes: u64) -> Vec<K> {
        let mut out = Vec::new();
        while self.total_bytes > limit_bytes
            && let Some((_, key)) = self.order.first_key_value()
        {
            let key = *key;
            self.remove(&key);
            out.push(key);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut lru = Lru::new();
        for key in 0..4 {
            lru.insert(key, (), 10);
        }
        assert!(lru.get(&0).is_some());
        lru.insert(1, (), 5);
        assert_eq!(lru.total_bytes(), 35);
        assert_eq!(lru.shrink_to(20), [2, 3]);
        assert_eq!((lru.len(), lru.total_bytes()), (2, 15));
        assert!(lru.get(&2).is_none());
        assert!(lru.shrink_to(0).len() == 2 && lru.shrink_to(0).is_empty());
    }
}
