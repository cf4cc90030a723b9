//! Why a row is not among a query's answers.

use std::fmt;

use super::explain::{grouped, number};
use super::{Goal, Hits, Index, Options};
use crate::error::{Error, Result};
use crate::exact;
use crate::kernels::float::Judge;
use crate::rows::Rows;
use crate::threads::{Hushed, Monitor, Run};
use crate::top_k::Neighbor;

/// The widest beam that is tried for a row that a walk missed.
const WIDEST: usize = 8192;

/// Why an id is, or is not, among a query's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is among them.
    Found,
    /// No row has it.
    NotInIndex,
    /// The filter excludes its row.
    FilteredOut,
    /// `k` rows are nearer, or as near and before it.
    BeyondK,
    /// It is one of the `k` nearest, and the walk did not come to it.
    Missed,
}

/// What [`Index::why_not`] found out.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct WhyNot {
    /// The id that was asked for.
    pub id: i64,
    /// Why.
    pub reason: Reason,
    /// Answers that were asked for.
    pub k: usize,
    /// Rows that may answer.
    pub allowed: usize,
    /// How many of those come before its row in an exact search; none where there is no such row.
    pub rank: Option<usize>,
    /// The exact distance of its row.
    pub distance: Option<f64>,
    /// The exact distance of the last of the `k` nearest rows that may answer.
    pub kth_distance: Option<f64>,
    /// The width of the beam that missed it.
    pub effort: Option<usize>,
    /// A width at which it is found; none if even 8,192 was too narrow.
    pub effort_needed: Option<usize>,
}

impl Index<'_> {
    /// Why the row with this id is not among the answers of a search, or that it is.
    ///
    /// The same search is made, and an exact one; where a walk missed the row, wider ones.
    ///
    /// ```
    /// use omendb::{Index, Metric, Options, Reason, Rows, Run};
    ///
    /// let index = Index::new(Rows::from_vec(vec![0.0f32, 1.0, 2.0, 3.0], 1)?, Metric::Euclidean)?;
    /// let query = Rows::borrow(&[0.2f32], 1)?;
    /// let why = index.why_not(&query, 3, 2, Options::new(), Run::new())?;
    /// assert_eq!((why.reason, why.rank), (Reason::BeyondK, Some(3)));
    /// # Ok::<(), omendb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Index::search_with`]; `InvalidParameter` also if there is not one query.
    pub fn why_not(
        &self,
        query: &Rows<'_>,
        id: i64,
        k: usize,
        options: Options<'_>,
        run: Run<'_>,
    ) -> Result<WhyNot> {
        let (threads, monitor) = run.parts()?;
        let monitor = &mut Hushed(monitor);
        if query.len() != 1 {
            return Err(Error::invalid(format!("expected one query, got {}", query.len())));
        }
        let (state, selection) = self.asked(query, Goal::Nearest(k), &options)?;
        query.check("queries")?;
        let corpus = self.corpus(&state, selection.as_deref());
        let mut why = WhyNot {
            id,
            reason: Reason::NotInIndex,
            k,
            allowed: corpus.candidates(),
            rank: None,
            distance: None,
            kth_distance: None,
            effort: None,
            effort_needed: None,
        };
        let row = (0..state.rows()).find(|&row| state.id(row) == id && state.is_live(row));
        let Some(row) = row else { return Ok(why) };
        let mut numbers = vec![0.0; self.dim];
        corpus.read(row as u32, &mut numbers);
        let wide = exact::widen(query);
        let distance = Judge::new(self.metric, &wide).distance(&numbers);
        why.distance = Some(distance);
        let goal = Goal::Within(distance);
        let nearer = exact::search(corpus, query, goal, threads, monitor)?;
        let own = Neighbor { distance, row: row as u32 };
        why.rank = nearer.iter().map(|list| list.partition_point(|other| *other < own)).next();
        let nearest = exact::search(corpus, query, Goal::Nearest(k), threads, monitor)?;
        let last = nearest.iter().find_map(|list| list.last());
        why.kth_distance = last.map(|last| last.distance);
        let rank = why.rank.unwrap_or(0);
        let mut found = |options: Options<'_>| -> Result<bool> {
            let mut hits = Hits::default();
            let run = (threads, &mut *monitor as &mut dyn Monitor);
            self.answer_from(&state, corpus, query, Goal::Nearest(k), &options, run, &mut hits)?;
            Ok(hits.ids.contains(&id))
        };
        if corpus.allowed.is_some_and(|allowed| !allowed.contains(row)) {
            why.reason = Reason::FilteredOut;
        } else if found(options)? {
            why.reason = Reason::Found;
        } else if rank >= k {
            why.reason = Reason::BeyondK;
        } else {
            why.reason = Reason::Missed;
            let effort = options.effort.unwrap_or(state.effort).max(k);
            why.effort = Some(effort);
            // The narrowest by doubling and halving: a wider beam nearly always finds more.
            let (mut low, mut high) = (effort, effort);
            while why.effort_needed.is_none() && high < WIDEST {
                high = (2 * high).min(WIDEST);
                if found(options.effort(high))? {
                    why.effort_needed = Some(high);
                } else {
                    low = high;
                }
            }
            while why.effort_needed.is_some() && high - low > 1 {
                let middle = low.midpoint(high);
                if found(options.effort(middle))? {
                    (high, why.effort_needed) = (middle, Some(middle));
                } else {
                    low = middle;
                }
            }
        }
        state.sound()?;
        Ok(why)
    }
}

impl WhyNot {
    /// The answer as a sentence, with the id written like this.
    pub(crate) fn sentence(&self, id: &str) -> String {
        let (Some(rank), Some(distance)) = (self.rank, self.distance) else {
            return format!("id {id} is not in the index");
        };
        let rows = number(self.allowed, "row", "rows");
        let kth = self.kth_distance.unwrap_or(f64::NAN);
        let place =
            format!("at distance {distance:.6} it is the {} nearest of {rows}", nth(rank + 1));
        match self.reason {
            Reason::Found => format!("id {id} is among the answers: {place}"),
            Reason::NotInIndex => format!("id {id} is not in the index"),
            Reason::FilteredOut if self.allowed == 0 => {
                format!(
                    "the filter lets no row answer, id {id} neither; its distance is {distance:.6}"
                )
            }
            Reason::FilteredOut => {
                let among = if rank < self.k { "would be" } else { "would not be" };
                format!(
                    "the filter excludes id {id}: at distance {distance:.6} it would come {} among the \
                     {rows} that may answer, and so {among} one of the {} nearest",
                    nth(rank + 1),
                    grouped(self.k)
                )
            }
            Reason::BeyondK if distance <= kth => format!(
                "id {id} is not among the {} nearest: {place}, as far as the last answer, and ties go \
                 to the row that comes first; k = {} would reach it",
                grouped(self.k),
                grouped(rank + 1)
            ),
            Reason::BeyondK => format!(
                "id {id} is not among the {} nearest: {place}, {:.6} beyond the last answer at \
                 {kth:.6}; k = {} would reach it",
                grouped(self.k),
                distance - kth,
                grouped(rank + 1)
            ),
            Reason::Missed => {
                let effort = self.effort.map_or(String::new(), grouped);
                let missed = format!(
                    "the walk missed id {id} at effort {effort}: {place}, so an exact search answers \
                     with it"
                );
                match self.effort_needed {
                    Some(needed) => {
                        format!("{missed}, and so does a walk at effort {}", grouped(needed))
                    }
                    None => format!("{missed}; a walk does not even at effort {}", grouped(WIDEST)),
                }
            }
        }
    }
}

/// An ordinal number.
fn nth(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{}{ending}", grouped(number))
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence(&self.id.to_string()))
    }
}
