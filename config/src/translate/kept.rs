//! What was made of each object of one kind, kept for the next translation.
//!
//! An outcome is used again where its object is the same value, told by its pointer, and
//! nothing else that it was made from has changed, which its maker decides. There is an
//! outcome for each object of the last state and no other, so their number is bounded by
//! that of the live objects; and the object is held with it, so its pointer is not given to
//! another one meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kind::ObjectKey;

/// The outcomes of the objects of one kind, in order of their names.
#[derive(Debug)]
pub(super) struct Kept<V, O> {
    entries: Vec<Entry<V, O>>,
}

#[derive(Debug)]
struct Entry<V, O> {
    key: ObjectKey,
    object: Arc<V>,
    outcome: O,
}

impl<V, O> Kept<V, O> {
    /// Takes the objects of a state. `is_current` says whether an outcome of the same
    /// object still holds; every other one is made anew, from the object and from what was
    /// made of the one of that name before, of which equal parts can be used again.
    pub(super) fn turn(
        &mut self,
        objects: &BTreeMap<ObjectKey, Arc<V>>,
        is_current: impl Fn(&V, &O) -> bool,
        mut make: impl FnMut(&V, Option<O>) -> O,
    ) {
        let mut before = std::mem::take(&mut self.entries).into_iter().peekable();
        self.entries.reserve_exact(objects.len());
        for (key, object) in objects {
            let is_same = |entry: &Entry<V, O>| Arc::ptr_eq(&entry.object, object);
            // Both are in order. Most objects are where they were, and a pointer is compared
            // sooner than a name.
            if !before.peek().is_some_and(is_same) {
                while before.next_if(|entry| entry.key < *key).is_some() {}
            }
            let known = before.next_if(|entry| entry.key == *key);
            self.entries.push(match known {
                Some(known) if is_same(&known) && is_current(object, &known.outcome) => known,
                known => Entry {
                    key: key.clone(),
                    object: Arc::clone(object),
                    outcome: make(object, known.map(|known| known.outcome)),
                },
            });
        }
    }

    /// The outcomes, in order of the names of their objects.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = &O> {
        self.entries.iter().map(|entry| &entry.outcome)
    }
}

impl<V, O> Default for Kept<V, O> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(entries: &[(&str, &Arc<u8>)]) -> BTreeMap<ObjectKey, Arc<u8>> {
        let entry = |(name, object): &(&str, &Arc<u8>)| {
            (ObjectKey::new("shop", name).unwrap(), Arc::clone(object))
        };
        entries.iter().map(entry).collect()
    }

    /// The outcomes, and those that were made anew.
    fn turn(kept: &mut Kept<u8, u8>, objects: &BTreeMap<ObjectKey, Arc<u8>>) -> [Vec<u8>; 2] {
        let mut made = Vec::new();
        let make = |value: &u8, _: Option<u8>| {
            made.push(*value);
            *value
        };
        kept.turn(objects, |_, outcome| *outcome != 9, make);
        [kept.outcomes().copied().collect(), made]
    }

    #[test]
    fn only_what_has_changed_is_made_anew_and_what_is_gone_is_dropped() {
        let [one, two, three, four, nine] = [1, 2, 3, 4, 9].map(Arc::new);
        let mut kept = Kept::default();
        let first = state(&[("b", &one), ("d", &two), ("f", &nine)]);
        assert_eq!(turn(&mut kept, &first), [vec![1, 2, 9], vec![1, 2, 9]]);
        assert_eq!(turn(&mut kept, &first), [vec![1, 2, 9], vec![9]], "9 never holds");
        let more = state(&[("a", &three), ("b", &one), ("c", &two), ("d", &four), ("g", &one)]);
        assert_eq!(turn(&mut kept, &more), [vec![3, 1, 2, 4, 1], vec![3, 2, 4, 1]]);
        assert_eq!(Arc::strong_count(&nine), 2, "only the first state holds it");
        assert_eq!(turn(&mut kept, &state(&[("d", &four)])), [vec![4], Vec::new()]);
        assert_eq!(turn(&mut kept, &state(&[("e", &four)])), [vec![4], vec![4]], "renamed");
        assert_eq!(turn(&mut kept, &state(&[])), [Vec::<u8>::new(), Vec::new()]);
    }
}
