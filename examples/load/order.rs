//! Whether one reader got everything, once, and in each writer's order.

/// The messages of each writer that one reader has seen. A step costs one comparison as long as nothing is wrong.
#[derive(Debug, Default)]
pub struct Order {
    /// By writer: the sequence that must come next.
    next: Vec<u32>,
    /// What was passed over and has not come since, as (writer, first, past the last).
    missing: Vec<(u16, u32, u32)>,
    /// Came again.
    pub duplicated: u64,
    /// Came after a later one of the same writer.
    pub reordered: u64,
    /// Of a writer that is not of this run.
    pub foreign: u64,
}

impl Order {
    /// For messages of this many writers, from their first on.
    pub fn new(writers: usize) -> Self {
        Self { next: vec![0; writers], ..Self::default() }
    }

    /// The reader has seen a message.
    pub fn saw(&mut self, writer: u16, sequence: u32) {
        let Some(next) = self.next.get_mut(usize::from(writer)) else {
            self.foreign += 1;
            return;
        };
        if sequence == *next {
            *next += 1;
        } else if sequence > *next {
            self.missing.push((writer, *next, sequence));
            *next = sequence + 1;
        } else {
            self.saw_late(writer, sequence);
        }
    }

    /// How many messages were never seen of those that each writer has sent (by writer, how many), without those for
    /// which `is_excused` holds: nobody promised them.
    pub fn lost(&self, sent: &[u32], is_excused: impl Fn(u16, u32) -> bool) -> u64 {
        let tail = (0..).zip(self.next.iter().zip(sent)).map(|(writer, (next, sent))| (writer, *next, *sent));
        let unseen = self.missing.iter().copied().chain(tail);
        unseen.map(|(writer, from, until)| (from..until).filter(|n| !is_excused(writer, *n)).count() as u64).sum()
    }

    #[cold]
    fn saw_late(&mut self, writer: u16, sequence: u32) {
        let holds = |(of, from, until): &(u16, u32, u32)| *of == writer && (*from..*until).contains(&sequence);
        let Some(at) = self.missing.iter().position(holds) else {
            self.duplicated += 1;
            return;
        };
        self.reordered += 1;
        let (_, from, until) = self.missing.swap_remove(at);
        let parts = [(writer, from, sequence), (writer, sequence + 1, until)];
        self.missing.extend(parts.into_iter().filter(|(_, from, until)| from < until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sequences: &[(u16, u32)]) -> Order {
        let mut order = Order::new(2);
        sequences.iter().for_each(|(writer, sequence)| order.saw(*writer, *sequence));
        order
    }

    #[test]
    fn writers_may_interleave() {
        let order = seen(&[(0, 0), (1, 0), (1, 1), (0, 1)]);
        assert_eq!((order.duplicated, order.reordered, order.lost(&[2, 2], |_, _| false)), (0, 0, 0));
    }

    #[test]
    fn what_never_came_is_lost_unless_nobody_promised_it() {
        let order = seen(&[(0, 0), (0, 3), (1, 0)]);
        assert_eq!(order.lost(&[5, 2], |_, _| false), 2 + 1 + 1);
        assert_eq!(order.lost(&[5, 2], |writer, sequence| (writer, sequence) == (0, 2)), 3);
        assert_eq!((order.duplicated, order.reordered), (0, 0));
    }

    #[test]
    fn late_and_twice_are_told_apart() {
        let order = seen(&[(0, 0), (0, 4), (0, 2), (0, 2), (0, 4), (0, 1), (0, 3)]);
        assert_eq!((order.duplicated, order.reordered, order.lost(&[5, 0], |_, _| false)), (2, 3, 0));
        assert_eq!(seen(&[(7, 0)]).foreign, 1);
    }
}
