//! The first memory that a program hands out: from the front of one piece that it is born with.
//!
//! A runtime lives for milliseconds and holds little. What malloc(3) costs it is not its search for a
//! free piece but the code and the system calls that it runs for the first time: a `run` is some 5 in a
//! hundred faster without, `state` 15. When the piece is used up, all further memory comes
//! from elsewhere and goes back there, so that a command that lives on does not grow.

#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Aligned as most pages are, which is more than what any type asks for.
#[repr(align(4096))]
struct Piece<const SIZE: usize>(UnsafeCell<[u8; SIZE]>);

/// Hands out `SIZE` bytes, then those of `F`. Only the newest allocation can grow in place or be given
/// back; the rest ends with the program.
pub(super) struct Arena<const SIZE: usize, F> {
    piece: Piece<SIZE>,
    /// How much of the piece is handed out.
    used: AtomicUsize,
    further: F,
}

// SAFETY: bytes of the piece belong to whoever moved `used` past them, which one thread does at a time.
unsafe impl<const SIZE: usize, F: Sync> Sync for Arena<SIZE, F> {}

impl<const SIZE: usize, F> Arena<SIZE, F> {
    /// One of which nothing is handed out.
    pub(super) const fn before(further: F) -> Self {
        Arena {
            piece: Piece(UnsafeCell::new([0; SIZE])),
            used: AtomicUsize::new(0),
            further,
        }
    }

    fn start(&self) -> *mut u8 {
        self.piece.0.get().cast()
    }

    /// Where in the piece `pointer` is, if it is there.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        let offset = (pointer as usize).wrapping_sub(self.start() as usize);
        (offset < SIZE).then_some(offset)
    }

    /// The next bytes of the piece, if there are enough.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        loop {
            let used = self.used.load(Relaxed);
            let start = used.checked_next_multiple_of(layout.align())?;
            let end = start.checked_add(layout.size()).filter(|end| *end < SIZE)?;
            if self.replace(used, end) {
                return Some(self.start().wrapping_add(start));
            }
        }
    }

    /// Moves the end of the newest allocation; false when it is not the newest or the piece is too short.
    fn move_end(&self, start: usize, old_size: usize, new_size: usize) -> bool {
        let end = start.checked_add(new_size).filter(|end| *end < SIZE);
        end.is_some_and(|end| self.replace(start + old_size, end))
    }

    /// Another number of bytes handed out, if it is still `old`. Nothing is read through the number, so no order
    /// is needed beside that of its changes.
    fn replace(&self, old: usize, new: usize) -> bool {
        // A program without libc has one thread, and on aarch64 none of the helpers that an exchange calls.
        if cfg!(not(feature = "runtime")) {
            let is_old = self.used.load(Relaxed) == old;
            if is_old {
                self.used.store(new, Relaxed);
            }
            return is_old;
        }
        self.used
            .compare_exchange(old, new, Relaxed, Relaxed)
            .is_ok()
    }
}

// SAFETY: `take` and `move_end` never hand out the same bytes twice but after `dealloc` of the newest; what
// is not in the piece is passed on to whom it came from.
unsafe impl<const SIZE: usize, F: GlobalAlloc> GlobalAlloc for Arena<SIZE, F> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match layout.align() <= align_of::<Piece<SIZE>>() {
            true => self.take(layout),
            false => None,
        }
        // SAFETY: the caller's promises are passed on.
        .unwrap_or_else(|| unsafe { self.further.alloc(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.offset(pointer) {
            // Not the newest: it is left.
            Some(start) => _ = self.move_end(start, layout.size(), 0),
            // SAFETY: it came from there; the caller's promises are passed on.
            None => unsafe { self.further.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(start) = self.offset(pointer) else {
            // SAFETY: it came from there; the caller's promises are passed on.
            return unsafe { self.further.realloc(pointer, layout, new_size) };
        };
        if self.move_end(start, layout.size(), new_size) || new_size <= layout.size() {
            return pointer;
        }
        let Ok(new_layout) = Layout::from_size_align(new_size, layout.align()) else {
            return core::ptr::null_mut();
        };
        // SAFETY: the caller promises that the size is not 0.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            let length = layout.size().min(new_size);
            // SAFETY: `new` was just taken, so it overlaps nothing, and both hold `length` bytes.
            unsafe { core::ptr::copy_nonoverlapping(pointer, new, length) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;

    use super::*;

    const SIZE: usize = 4096;

    /// An allocation of a test, every byte of which is its number.
    struct Block<'a> {
        arena: &'a Arena<SIZE, System>,
        pointer: *mut u8,
        layout: Layout,
        number: u8,
    }

    impl Block<'_> {
        fn new(arena: &Arena<SIZE, System>, size: usize, align: usize, number: u8) -> Block<'_> {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: no test asks for nothing.
            let pointer = unsafe { arena.alloc(layout) };
            assert!(!pointer.is_null() && (pointer as usize).is_multiple_of(align));
            let block = Block {
                arena,
                pointer,
                layout,
                number,
            };
            block.fill();
            block
        }

        fn fill(&self) {
            // SAFETY: all of it is this block's.
            unsafe { self.pointer.write_bytes(self.number, self.layout.size()) };
        }

        fn check(&self, size: usize) {
            // SAFETY: it was filled, and is no smaller.
            let bytes = unsafe { core::slice::from_raw_parts(self.pointer, size) };
            assert!(bytes.iter().all(|byte| *byte == self.number));
        }

        fn is_in_the_piece(&self) -> bool {
            self.arena.offset(self.pointer).is_some()
        }

        fn resize(&mut self, size: usize) {
            // SAFETY: it has this layout, and the size is not 0.
            self.pointer = unsafe { self.arena.realloc(self.pointer, self.layout, size) };
            self.check(size.min(self.layout.size()));
            self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
            self.fill();
        }

        fn give_back(self) {
            self.check(self.layout.size());
            // SAFETY: it has this layout, and is used no more.
            unsafe { self.arena.dealloc(self.pointer, self.layout) };
        }
    }

    #[test]
    fn bytes_are_handed_out_once_and_aligned() {
        let arena = Arena::before(System);
        let block = |n: u8| Block::new(&arena, usize::from(n) * 7 + 1, 1 << (n % 7), n);
        let all: Vec<_> = (0..10).map(block).collect();
        for block in all {
            assert!(block.is_in_the_piece());
            block.give_back();
        }
    }

    #[test]
    fn the_newest_grows_where_it_is_and_is_given_back() {
        let arena = Arena::before(System);
        let mut first = Block::new(&arena, 100, 8, 1);
        let mut newest = Block::new(&arena, 100, 8, 2);
        let (place, before) = (newest.pointer, first.pointer);
        newest.resize(1000);
        newest.resize(500);
        assert_eq!(newest.pointer, place);
        first.resize(200);
        assert_ne!(first.pointer, before);
        let place = first.pointer;
        first.give_back();
        let next = Block::new(&arena, 50, 8, 3);
        assert_eq!(next.pointer, place);
        newest.give_back();
        next.give_back();
    }

    #[test]
    fn what_does_not_fit_comes_from_elsewhere_and_goes_back_there() {
        let arena = Arena::before(System);
        let mut inside = Block::new(&arena, 4000, 8, 1);
        let mut outside = Block::new(&arena, 4000, 8, 2);
        let aligned = Block::new(&arena, 8, 8192, 3);
        assert!(!outside.is_in_the_piece() && !aligned.is_in_the_piece());
        inside.resize(5000);
        assert!(!inside.is_in_the_piece());
        outside.resize(9000);
        for block in [inside, outside, aligned] {
            block.give_back();
        }
        let largest = Layout::from_size_align(isize::MAX as usize - 7, 8).unwrap();
        assert!(arena.take(largest).is_none());
    }

    #[test]
    fn threads_get_bytes_of_their_own() {
        let arena = Arena::before(System);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let arena = &arena;
                scope.spawn(move || {
                    (1..200).for_each(|size| Block::new(arena, size, 1, n).give_back());
                });
            }
        });
    }
}
