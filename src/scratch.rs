//! Memory that is used again: one query after another takes none from the heap.
//!
//! A search needs a dozen small arrays, and an allocator takes longer for them than a small search for
//! all else. Each thread keeps those of its last calls. What there is one of for each query lies in a
//! [`One`], which for one query is on the stack.

use std::mem;
use std::ops::{Deref, DerefMut};

use smallvec::SmallVec;

/// Items of which there are mostly no more than so many.
pub(crate) type Few<T, const N: usize> = SmallVec<[T; N]>;
/// Items of which there is mostly one.
pub(crate) type One<T> = Few<T, 1>;

/// Buffers of a type that a thread keeps, and the largest that is worth it.
const KEPT: usize = 8;
const KEPT_BYTES: usize = 1 << 20;

/// A type whose buffers are kept.
pub(crate) trait Kept: Sized + 'static {
    /// Calls `body` with the thread's buffers; does not where the thread is ending.
    fn buffers<R>(body: impl FnOnce(&mut Vec<Vec<Self>>) -> R) -> Option<R>;
}

macro_rules! kept {
    ($($type:ty),*) => {
        $(impl $crate::scratch::Kept for $type {
            fn buffers<R>(body: impl FnOnce(&mut Vec<Vec<Self>>) -> R) -> Option<R> {
                thread_local! {
                    static BUFFERS: std::cell::RefCell<Vec<Vec<$type>>> =
                        const { std::cell::RefCell::new(Vec::new()) };
                }
                BUFFERS.try_with(|buffers| body(&mut buffers.borrow_mut())).ok()
            }
        })*
    };
}
pub(crate) use kept;
kept!(f64, f32, i32, u32, i8, u8, (u32, u32));

/// A vector that goes back to its thread's buffers when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer<T: Kept>(Vec<T>);

impl<T: Kept> Buffer<T> {
    /// Without items, mostly with room.
    pub(crate) fn new() -> Self {
        Self(T::buffers(Vec::pop).flatten().unwrap_or_default())
    }

    /// With so many items.
    pub(crate) fn filled(len: usize, item: T) -> Self
    where
        T: Copy,
    {
        let mut buffer = Self::new();
        buffer.resize(len, item);
        buffer
    }

    /// With the items of a vector, and its memory.
    pub(crate) fn of(items: Vec<T>) -> Self {
        Self(items)
    }

    /// The vector.
    pub(crate) fn take(mut self) -> Vec<T> {
        mem::take(&mut self.0)
    }
}

impl<T: Kept> Default for Buffer<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Kept + Copy> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        let mut buffer = Self::new();
        buffer.extend_from_slice(self);
        buffer
    }

    fn clone_from(&mut self, other: &Self) {
        self.0.clone_from(&other.0);
    }
}

impl<T: Kept> Drop for Buffer<T> {
    fn drop(&mut self) {
        let mut buffer = mem::take(&mut self.0);
        let bytes = buffer.capacity() * size_of::<T>();
        if (1..=KEPT_BYTES).contains(&bytes) {
            buffer.clear();
            T::buffers(|buffers| {
                if buffers.len() < KEPT {
                    buffers.push(buffer);
                }
            });
        }
    }
}

impl<T: Kept> Deref for Buffer<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: Kept> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}
