//! The flows of a worker, by number. A number is used again, with another generation, so that a completion
//! for a flow that is gone is told from one for its successor.

/// Which flow: its slot and the slot's generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowId {
    /// The slot.
    pub slot: u32,
    /// How often the slot was used before, in 24 bits.
    pub generation: u32,
}

const GENERATION_MASK: u32 = (1 << 24) - 1;

/// Slots that hold flows or are free.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table {
            slots: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Table<T> {
    /// How many are in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts one in.
    pub fn insert(&mut self, value: T) -> FlowId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                value: None,
            });
            (self.slots.len() - 1) as u32
        });
        let place = &mut self.slots[slot as usize];
        place.value = Some(value);
        self.len += 1;
        FlowId {
            slot,
            generation: place.generation,
        }
    }

    /// The one of this name, if it is still there.
    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation {
            slot.value.as_mut()
        } else {
            None
        }
    }

    /// The one in this slot and its name.
    pub fn in_slot(&mut self, slot: u32) -> Option<(FlowId, &mut T)> {
        let place = self.slots.get_mut(slot as usize)?;
        let id = FlowId {
            slot,
            generation: place.generation,
        };
        place.value.as_mut().map(|value| (id, value))
    }

    /// All of them, in no order of meaning.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
    }

    /// Takes one out.
    pub fn remove(&mut self, id: FlowId) -> Option<T> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        self.free.push(id.slot);
        self.len -= 1;
        Some(value)
    }

    /// The names of all, in no order of meaning.
    pub fn ids(&self) -> Vec<FlowId> {
        let each = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.value.is_some());
        each.map(|(index, slot)| FlowId {
            slot: index as u32,
            generation: slot.generation,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_does_not_find_the_slots_next_flow() {
        let mut table = Table::default();
        let first = table.insert("first");
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second");
        assert_eq!(second.slot, first.slot);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get_mut(second), Some(&mut "second"));
        assert_eq!(table.ids(), [second]);
    }
}
