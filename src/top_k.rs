//! Neighbours, their order, and selection of the k first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::mem;

use crate::scratch::{Buffer, Kept, kept};

/// A row and its distance from a query.
///
/// Ordered by distance, then by row, so that equal distances have one order on every machine.
/// `total_cmp` makes the order total: a NaN, which only a caller who writes into a borrowed
/// array during a search can cause, sorts last instead of breaking the heap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbor {
    pub(crate) distance: f64,
    pub(crate) row: u32,
}

impl Ord for Neighbor {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Neighbor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Neighbor {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Neighbor {}

/// The k smallest of the items pushed so far.
#[derive(Debug)]
pub(crate) struct TopK<T: Kept + Ord> {
    k: usize,
    heap: BinaryHeap<T>,
}

kept!(Neighbor);

impl<T: Kept + Ord + Copy> TopK<T> {
    pub(crate) fn new(k: usize) -> Self {
        Self { k, heap: Buffer::new().take().into() }
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// The k-th smallest item, once k have been seen.
    pub(crate) fn worst(&self) -> Option<T> {
        if self.heap.len() == self.k { self.heap.peek().copied() } else { None }
    }

    /// Keeps `item` if it is among the k smallest; tells whether it was kept.
    pub(crate) fn push(&mut self, item: T) -> bool {
        if self.heap.len() < self.k {
            self.heap.push(item);
            return true;
        }
        match self.heap.peek_mut() {
            Some(mut worst) if item < *worst => {
                *worst = item;
                true
            }
            _ => false,
        }
    }

    /// The items, unordered.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
        self.heap.iter().copied()
    }

    /// The items, smallest first.
    pub(crate) fn into_sorted(mut self) -> Buffer<T> {
        Buffer::of(mem::take(&mut self.heap).into_sorted_vec())
    }
}

impl<T: Kept + Ord> Drop for TopK<T> {
    fn drop(&mut self) {
        drop(Buffer::of(mem::take(&mut self.heap).into_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_k_smallest_come_out_in_order_and_ties_go_to_the_lower_row() {
        let mut top = TopK::new(3);
        for (row, distance) in [(5, 1.0), (1, 2.0), (4, 1.0), (9, 0.5), (2, f64::NAN)] {
            top.push(Neighbor { distance, row });
        }
        let rows: Vec<u32> = top.into_sorted().iter().map(|n| n.row).collect();
        assert_eq!(rows, [9, 4, 5]);
    }

    #[test]
    fn the_worst_is_unknown_until_k_items_were_seen() {
        let mut top = TopK::new(2);
        top.push(1u32);
        assert_eq!(top.worst(), None);
        top.push(7);
        assert_eq!(top.worst(), Some(7));
        assert!(!top.push(8));
        assert!(top.push(3));
        assert_eq!(top.worst(), Some(3));
    }
}
