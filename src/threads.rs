//! Our own threads: a pool that survives a fork, work that can be stopped, and progress.
//!
//! rayon's global pool is never touched: it belongs to the host program, and a forked child
//! inherits a pool whose threads do not exist. Ours is made at the first call that wants more
//! than one thread and again in a process that finds another process's pool.
//!
//! The calling thread always works too, and it alone talks to the caller's [`Monitor`]: in Python
//! that is the thread which may raise `KeyboardInterrupt`.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use std::{mem, process, ptr, thread};

use rayon::ThreadPool;

use crate::error::{Error, Result};

/// How often the monitor is asked.
const PATIENCE: Duration = Duration::from_millis(25);
/// Multiply-adds between two looks at the clock: below a millisecond on any processor.
const LOOK: u64 = 1 << 22;
/// Looks, 50 µs apart, at what others lock for some nanoseconds.
const BRIEFLY: usize = 2000;

/// Hears of progress and may stop the work.
pub trait Monitor {
    /// Told every 25 ms or so how much of the work is done; `false` stops it.
    fn poll(&mut self, done: u64, total: u64) -> bool;

    /// Told once that all is done, before anything is published; `false` discards it.
    fn finish(&mut self) -> bool {
        true
    }
}

/// Never stops anything.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Monitor for Silent {
    fn poll(&mut self, _done: u64, _total: u64) -> bool {
        true
    }
}

/// How a call is run: on how many threads, and who hears of it. Answers do not depend on it.
///
/// ```
/// use omendb::{Index, Metric, Monitor, Options, Rows, Run};
///
/// struct Patience(u32);
///
/// impl Monitor for Patience {
///     fn poll(&mut self, _done: u64, _total: u64) -> bool {
///         self.0 -= 1;
///         self.0 > 0 // false stops the call, which then returns Error::Interrupted
///     }
/// }
///
/// let index = Index::new(Rows::from_vec(vec![0.0f32; 16], 2)?, Metric::Euclidean)?;
/// let query = Rows::borrow(&[0.0f32, 0.0], 2)?;
/// let mut patience = Patience(40); // polls, 25 ms apart
/// let run = Run::new().threads(1).monitor(&mut patience);
/// let hits = index.search_with(&query, 1, Options::new(), run)?;
/// # Ok::<(), omendb::Error>(())
/// ```
#[must_use]
pub struct Run<'a> {
    threads: Option<usize>,
    monitor: &'a mut dyn Monitor,
}

impl<'a> Run<'a> {
    /// On all processors, and nobody hears of it.
    #[inline]
    pub fn new() -> Self {
        // A box of nothing takes no memory.
        Self { threads: None, monitor: Box::leak(Box::new(Silent)) }
    }

    /// On so many threads, the calling one among them.
    #[inline]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: Some(threads), ..self }
    }

    /// Tells `monitor` of progress; it may stop the call.
    #[inline]
    pub fn monitor(self, monitor: &'a mut dyn Monitor) -> Self {
        Self { monitor, ..self }
    }

    /// The threads, and the monitor.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` for no threads.
    #[inline]
    pub(crate) fn parts(self) -> Result<(usize, &'a mut dyn Monitor)> {
        match self.threads {
            Some(0) => Err(Error::invalid("expected threads of at least 1, got 0")),
            threads => Ok((threads.unwrap_or_else(default_threads), self.monitor)),
        }
    }
}

impl Default for Run<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// Work shared by several threads.
struct Job {
    stopped: AtomicBool,
    done: AtomicU64,
    total: u64,
    next: AtomicUsize,
}

impl Job {
    fn new(total: u64) -> Self {
        Self {
            stopped: AtomicBool::new(false),
            done: AtomicU64::new(0),
            total,
            next: AtomicUsize::new(0),
        }
    }
}

/// One thread's part in a job.
pub(crate) struct Worker<'a> {
    job: &'a Job,
    /// Multiply-adds not yet told to the job.
    pending: Cell<u64>,
    /// Only the calling thread has it.
    monitor: Option<RefCell<(&'a mut dyn Monitor, Option<Instant>)>>,
}

impl Worker<'_> {
    /// Tells of `operations` multiply-adds done; `false` means: stop, the result is not wanted.
    #[inline]
    pub(crate) fn advance(&self, operations: u64) -> bool {
        let pending = self.pending.get() + operations;
        if pending < LOOK {
            self.pending.set(pending);
            return true;
        }
        self.pending.set(0);
        self.job.done.fetch_add(pending, Ordering::Relaxed);
        self.poll();
        !self.job.stopped.load(Ordering::Relaxed)
    }

    fn poll(&self) {
        let Some(monitor) = &self.monitor else { return };
        let (monitor, last) = &mut *monitor.borrow_mut();
        // The clock is not read before the first look: most calls end before it.
        if last.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
            *last = Some(Instant::now());
            let done = self.job.done.load(Ordering::Relaxed).min(self.job.total);
            if !monitor.poll(done, self.job.total) {
                self.job.stopped.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// The number of threads that `None` stands for: one for each processor.
pub(crate) fn default_threads() -> usize {
    // Asking reads the control group's files, 30 µs each time.
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Runs short work on the calling thread, without progress.
pub(crate) fn alone<T>(work: impl FnOnce(&Worker<'_>) -> T) -> T {
    let job = Job::new(0);
    work(&Worker { job: &job, pending: Cell::new(0), monitor: None })
}

/// [`run`] for one piece of work, on the calling thread.
///
/// # Errors
///
/// `Interrupted` if the monitor said so.
pub(crate) fn single<T>(
    total: u64,
    monitor: &mut dyn Monitor,
    work: impl FnOnce(&Worker<'_>) -> T,
) -> Result<T> {
    let job = Job::new(total);
    let caller =
        Worker { job: &job, pending: Cell::new(0), monitor: Some(RefCell::new((monitor, None))) };
    let result = work(&caller);
    conclude(caller, result)
}

/// The result, if nobody has stopped the work and the monitor does not discard it.
fn conclude<T>(caller: Worker<'_>, result: T) -> Result<T> {
    let finished = !caller.job.stopped.load(Ordering::Relaxed);
    let finished = finished && caller.monitor.is_none_or(|monitor| monitor.into_inner().0.finish());
    if finished { Ok(result) } else { Err(Error::Interrupted) }
}

/// Runs `work(0..tasks)` on up to `threads` threads, the caller's among them; results in order.
///
/// `total` is the multiply-adds of all tasks together, for progress.
///
/// # Errors
///
/// `Interrupted` if the monitor said so.
pub(crate) fn run<T: Send>(
    threads: usize,
    tasks: usize,
    total: u64,
    monitor: &mut dyn Monitor,
    work: impl Fn(usize, &Worker<'_>) -> T + Sync,
) -> Result<Vec<T>> {
    let job = Job::new(total);
    let caller =
        Worker { job: &job, pending: Cell::new(0), monitor: Some(RefCell::new((monitor, None))) };
    let mut results = Vec::with_capacity(tasks);
    if threads.min(tasks) <= 1 {
        for task in 0..tasks {
            results.push(work(task, &caller));
            if job.stopped.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
        }
    } else {
        let slots: Vec<Mutex<Option<T>>> = (0..tasks).map(|_| Mutex::new(None)).collect();
        let turn = |worker: &Worker<'_>| {
            while !job.stopped.load(Ordering::Relaxed) {
                let task = job.next.fetch_add(1, Ordering::Relaxed);
                let Some(slot) = slots.get(task) else { return };
                let result = work(task, worker);
                *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
            }
        };
        let help = || turn(&Worker { job: &job, pending: Cell::new(0), monitor: None });
        in_pool(|pool| match pool {
            Some(pool) => {
                let helped = Helped::by(pool, threads.min(tasks) - 1, &help);
                turn(&caller);
                helped.wait(|| caller.poll());
            }
            None => turn(&caller),
        });
        for slot in slots {
            results.extend(slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
        }
    }
    if results.len() < tasks { Err(Error::Interrupted) } else { conclude(caller, results) }
}

/// May stop the work, but hears of no progress.
pub(crate) struct Hushed<'a>(pub(crate) &'a mut dyn Monitor);

impl Monitor for Hushed<'_> {
    fn poll(&mut self, _done: u64, total: u64) -> bool {
        self.0.poll(0, total)
    }
}

/// Several pieces of work that a monitor hears of as one.
pub(crate) struct Stages<'a> {
    monitor: &'a mut dyn Monitor,
    done: u64,
    total: u64,
    /// When the monitor was asked last: pieces may be shorter than what it is left in peace for.
    asked: Option<Instant>,
}

impl<'a> Stages<'a> {
    /// `total` is the multiply-adds of all pieces, about.
    pub(crate) fn new(monitor: &'a mut dyn Monitor, total: u64) -> Self {
        Self { monitor, done: 0, total, asked: None }
    }

    /// [`run`] for one piece.
    pub(crate) fn run<T: Send>(
        &mut self,
        threads: usize,
        tasks: usize,
        operations: u64,
        work: impl Fn(usize, &Worker<'_>) -> T + Sync,
    ) -> Result<Vec<T>> {
        let results = run(threads, tasks, operations, self, work)?;
        self.done += operations;
        if self.asked.get_or_insert_with(Instant::now).elapsed() >= PATIENCE && !self.poll(0, 0) {
            return Err(Error::Interrupted);
        }
        Ok(results)
    }

    /// Says that there will be so much more.
    pub(crate) fn expect(&mut self, operations: u64) {
        self.total = self.done + operations;
    }

    /// Counts a piece that was run with this as its monitor.
    pub(crate) fn count(&mut self, operations: u64) {
        self.done += operations;
    }

    /// Tells that all is done.
    ///
    /// # Errors
    ///
    /// `Interrupted` if the monitor discards it.
    pub(crate) fn finish(self) -> Result<()> {
        if self.monitor.finish() { Ok(()) } else { Err(Error::Interrupted) }
    }
}

impl Monitor for Stages<'_> {
    fn poll(&mut self, done: u64, _total: u64) -> bool {
        self.asked = Some(Instant::now());
        self.monitor.poll((self.done + done).min(self.total), self.total)
    }
}

/// A lock that is held for as long as an edit takes, and knows its holder: who asks for it again, in a
/// monitor's call, would wait for itself.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Locked for moments, also while a turn is held.
    held: Mutex<bool>,
    freed: Condvar,
    /// [`Turns::me`] of the holder, or 0.
    holder: AtomicUsize,
    /// The process of the last holder.
    process: AtomicU32,
}

/// Held until it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
}

impl Turns {
    /// A number that no other thread of now has.
    fn me() -> usize {
        thread_local!(static HERE: u8 = const { 0 });
        HERE.with(|here| std::ptr::from_ref(here).addr())
    }

    /// # Errors
    ///
    /// `InvalidParameter` if a fork left it locked.
    fn lock(&self) -> Result<MutexGuard<'_, bool>> {
        for _ in 0..BRIEFLY {
            match self.held.try_lock() {
                Ok(held) => return Ok(held),
                Err(TryLockError::Poisoned(held)) => return Ok(held.into_inner()),
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_micros(50)),
            }
        }
        self.refuse_for_ever()?;
        Ok(self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The turn, if it is free.
    fn turn(&self, held: &mut bool) -> Result<Option<Turn<'_>>> {
        if *held {
            self.refuse_for_ever()?;
            return Ok(None);
        }
        *held = true;
        self.holder.store(Self::me(), Ordering::Relaxed);
        self.process.store(process::id(), Ordering::Relaxed);
        Ok(Some(Turn { turns: self }))
    }

    /// Waits for the turns of others; asks the monitor meanwhile.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if the turn is this thread's already, or one's that a fork left behind;
    /// `Interrupted` if the monitor said so.
    pub(crate) fn take(&self, monitor: &mut dyn Monitor) -> Result<Turn<'_>> {
        self.refuse_again()?;
        let mut asked = Instant::now();
        let mut held = self.lock()?;
        loop {
            if let Some(turn) = self.turn(&mut held)? {
                return Ok(turn);
            }
            let woken = self.freed.wait_timeout(held, PATIENCE);
            held = woken.unwrap_or_else(PoisonError::into_inner).0;
            if asked.elapsed() >= PATIENCE {
                drop(held);
                if !monitor.poll(0, 1) {
                    return Err(Error::Interrupted);
                }
                asked = Instant::now();
                held = self.lock()?;
            }
        }
    }

    /// None where it is another's.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` as [`Turns::take`].
    pub(crate) fn try_take(&self) -> Result<Option<Turn<'_>>> {
        self.refuse_again()?;
        let mut held = self.lock()?;
        self.turn(&mut held)
    }

    /// The threads of a parent process end nothing in its child.
    fn refuse_for_ever(&self) -> Result<()> {
        if self.process.load(Ordering::Relaxed) == process::id() {
            return Ok(());
        }
        Err(Error::invalid(
            "this process was forked while another thread edited the index, so that here the edit \
             never ends: search it, or edit a copy",
        ))
    }

    /// Only this thread writes its own number, so that others' orders do not matter.
    fn refuse_again(&self) -> Result<()> {
        if self.holder.load(Ordering::Relaxed) != Self::me() {
            return Ok(());
        }
        Err(Error::invalid(
            "the index is being edited by the call that this one was made from, which must end first",
        ))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.holder.store(0, Ordering::Relaxed);
        *self.turns.held.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.turns.freed.notify_one();
    }
}

/// Work that threads of a pool may take part in while this lives.
///
/// A scope of rayon's would wait for all that was spawned, also for what has not begun; and all threads of
/// the pool may be busy with the work of other calls, for minutes. Who comes when this has ended turns back.
struct Helped<'a> {
    gate: Arc<Gate>,
    _body: PhantomData<&'a ()>,
}

struct Gate {
    /// Twice the number of helpers inside, and one once no more are let in.
    state: AtomicUsize,
    /// What helpers call; gone when the gate is closed and nobody inside.
    body: *const (dyn Fn() + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: the body may be called by several threads at once (`Sync`).
#[allow(unsafe_code)]
unsafe impl Send for Gate {}
// SAFETY: as for Send.
#[allow(unsafe_code)]
unsafe impl Sync for Gate {}

impl Gate {
    #[allow(unsafe_code)]
    fn enter(&self) {
        // Acquire and release: what one side wrote before, the other sees.
        if self.state.fetch_add(2, Ordering::Acquire) & 1 == 0 {
            // SAFETY: `Helped` keeps the body until this is out again, since the gate was open.
            let body = unsafe { &*self.body };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        }
        self.state.fetch_sub(2, Ordering::Release);
    }

    /// Lets nobody in any more; whether somebody is inside.
    fn close(&self) -> bool {
        self.state.fetch_or(1, Ordering::AcqRel) > 1
    }

    /// Waits until nobody is inside, calling `meanwhile` now and then.
    fn end(&self, mut meanwhile: impl FnMut()) {
        while self.close() {
            thread::park_timeout(Duration::from_micros(50));
            meanwhile();
        }
    }
}

impl<'a> Helped<'a> {
    #[allow(unsafe_code)] // a borrow handed to threads that are waited for
    fn by(pool: &ThreadPool, helpers: usize, body: &'a (dyn Fn() + Sync)) -> Self {
        // SAFETY: the lifetime alone changes. Only who is inside the gate calls the body, and before `'a`
        // ends `drop` has closed the gate and waited until nobody is; this is never forgotten.
        let body =
            unsafe { mem::transmute::<&'a (dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(body) };
        let gate = Arc::new(Gate { state: AtomicUsize::new(0), body, panic: Mutex::new(None) });
        let helped = Self { gate, _body: PhantomData };
        for _ in 0..helpers {
            let gate = Arc::clone(&helped.gate);
            pool.spawn(move || gate.enter());
        }
        helped
    }

    /// Waits for those who have begun, calling `meanwhile` now and then. Panics as one of them did.
    fn wait(self, meanwhile: impl FnMut()) {
        self.gate.end(meanwhile);
        let panic = self.gate.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Helped<'_> {
    fn drop(&mut self) {
        self.gate.end(|| ());
    }
}

/// Calls `body` with this process's pool; with none if threads cannot be had.
#[allow(unsafe_code)] // a pointer that is set once for a process and never freed
fn in_pool<R>(body: impl FnOnce(Option<&ThreadPool>) -> R) -> R {
    static POOL: AtomicPtr<(u32, ThreadPool)> = AtomicPtr::new(ptr::null_mut());
    let mut current = POOL.load(Ordering::Acquire);
    loop {
        // SAFETY: what was stored is a leaked box, so it is valid for ever or null.
        if let Some((pid, pool)) = unsafe { current.as_ref() }
            && *pid == process::id()
        {
            return body(Some(pool));
        }
        // A lock here could be held for ever by a thread that a fork left behind; a race that
        // makes two pools costs a few idle threads once. The pool of another process is leaked:
        // dropping it would wait for threads that do not exist here.
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(default_threads())
            .thread_name(|i| format!("omendb-{i}"))
            .build();
        let Ok(pool) = pool else { return body(None) };
        let made = Box::into_raw(Box::new((process::id(), pool)));
        match POOL.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => current = made,
            Err(other) => {
                // SAFETY: `made` lost the race, so nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
                current = other;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stop(u32);

    impl Monitor for Stop {
        fn poll(&mut self, done: u64, total: u64) -> bool {
            assert!(done <= total);
            self.0 = self.0.saturating_sub(1);
            self.0 > 0
        }
    }

    #[test]
    fn results_come_in_order_at_any_number_of_threads() {
        for threads in 1..5 {
            let squares = run(threads, 100, 100, &mut Silent, |i, _| i * i).unwrap();
            assert_eq!(squares, (0..100).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    /// One call holds all threads of the pool: another does not wait for them.
    #[test]
    fn a_call_waits_for_no_thread_that_is_busy_elsewhere() {
        let many = default_threads() + 1;
        let held = AtomicUsize::new(0);
        let free = AtomicBool::new(false);
        let hold = |_: usize, _: &Worker<'_>| {
            held.fetch_add(1, Ordering::Relaxed);
            while !free.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            let other = scope.spawn(|| run(many, many, 0, &mut Silent, hold).unwrap().len());
            while held.load(Ordering::Relaxed) < many {
                thread::yield_now();
            }
            for _ in 0..20 {
                let squares = run(3, 100, 100, &mut Silent, |i, _| i * i).unwrap();
                assert_eq!(squares, (0..100).map(|i| i * i).collect::<Vec<_>>());
            }
            free.store(true, Ordering::Relaxed);
            assert_eq!(other.join().unwrap(), many);
        });
    }

    #[test]
    fn a_panic_of_a_helper_reaches_the_caller() {
        let caller = thread::current().id();
        let begun = AtomicBool::new(false);
        let work = |_: usize, _: &Worker<'_>| {
            if thread::current().id() == caller {
                // One of the tasks is left for a helper.
                while !begun.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            } else {
                begun.store(true, Ordering::Relaxed);
                panic!("a helper's own");
            }
        };
        let panicked = catch_unwind(|| run(2, 2, 0, &mut Silent, work)).unwrap_err();
        assert_eq!(panicked.downcast_ref(), Some(&"a helper's own"));
    }

    #[test]
    fn many_short_pieces_are_heard_of() {
        let mut monitor = Stop(3);
        let mut stages = Stages::new(&mut monitor, 1000);
        let mut piece = || {
            stages.run(1, 1, 1, |_, worker| {
                thread::sleep(Duration::from_millis(2));
                worker.advance(1)
            })
        };
        assert!((0..1000).any(|_| piece().is_err()), "nobody asked");
    }

    #[test]
    fn a_turn_is_refused_to_its_holder_and_others_wait_for_it() {
        let turns = Turns::default();
        let turn = turns.take(&mut Silent).unwrap();
        assert!(turns.take(&mut Silent).is_err() && turns.try_take().is_err());
        thread::scope(|scope| {
            assert!(scope.spawn(|| turns.try_take().unwrap().is_none()).join().unwrap());
            let impatient = scope.spawn(|| turns.take(&mut Stop(3)).err());
            assert_eq!(impatient.join().unwrap(), Some(Error::Interrupted));
            let other = scope.spawn(|| drop(turns.take(&mut Silent).unwrap()));
            drop(turn);
            other.join().unwrap();
        });
        assert!(turns.try_take().unwrap().is_some());
        assert!(turns.take(&mut Silent).is_ok());
    }

    #[test]
    fn a_monitor_that_says_no_stops_the_work() {
        for threads in 1..4 {
            let endless = |_: usize, worker: &Worker<'_>| while worker.advance(1 << 20) {};
            let stopped = run(threads, 4, 1 << 20, &mut Stop(3), endless);
            assert_eq!(stopped.unwrap_err(), Error::Interrupted);
        }
    }
}
