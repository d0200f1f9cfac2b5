//! Makes a worker's death harmless to the request that is on its way into the worker's memory.
//!
//! The kernel copies a request into fuser's read buffer page by page. Where a page is not there yet it must be faulted in,
//! and for a process that was killed a moment ago that fails; the kernel then answers the request with EIO instead of keeping
//! it for the next worker (fs/fuse/dev.c, `fuse_dev_do_read`: `if (err) req->out.h.error = -EIO`). Pages that are present are
//! copied to, killed or not. fuser 0.18 allocates its buffers lazily and lets nobody touch them, so the allocator does: it
//! knows them by their size. Measured with `tests/keeper` (1 MiB writes, kill -9 every 0.1 s): 8 of 40 runs
//! of 24 kills failed without this, none of 29 with it.

use std::alloc::{GlobalAlloc, Layout, System};

/// The size of fuser 0.18's read buffer (`read_buf.rs`: MAX_WRITE_SIZE and 4096). If a later fuser changes it, nothing
/// breaks but this protection, and tests/keeper (`the_buffers_of_the_session_are_touched`) says so.
const BUFFER: usize = (16 << 20) + 4096;
/// How much of it a request can fill: 1 MiB of data (the kernel's `fs.fuse.max_pages_limit`), the headers, the alignment.
const USED: usize = (1 << 20) + 8192;
const PAGE: usize = 4096;

/// The system's allocator, except that fuser's buffers come with their pages present.
pub struct TouchingAllocator;

// SAFETY: every call is System's, whose contract it keeps; `touch` writes only inside the new block.
unsafe impl GlobalAlloc for TouchingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let block = unsafe { System.alloc_zeroed(layout) };
        if layout.size() == BUFFER && !block.is_null() {
            touch(block);
        }
        block
    }
}

#[cold]
fn touch(block: *mut u8) {
    for at in (0..USED).step_by(PAGE) {
        // SAFETY: `at` is inside the block of BUFFER bytes, which nobody else has yet; zero is what it holds.
        unsafe { block.add(at).write_volatile(0) };
    }
}
