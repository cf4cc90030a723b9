//! Which way a search went, why, and what it took.
//!
//! The search is run and counted ([`crate::tally`]); nothing is told that it did not do.

use std::fmt::{self, Write};
use std::time::Instant;

use super::{Goal, Hits, Index, Method, Options, State};
use crate::corpus::Corpus;
use crate::error::Result;
use crate::rows::Rows;
use crate::tally::{Counts, Tally};
use crate::threads::Run;

/// What [`Index::explain`] saw a search do. Times and counts are of all its queries together.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The number of queries.
    pub queries: usize,
    /// Answers of each query.
    pub k: usize,
    /// The rows of the index.
    pub rows: usize,
    /// Those among them that may answer.
    pub allowed: usize,
    /// The width of the walk's beam; none where no walk was thought of.
    pub effort: Option<usize>,
    /// What a walk was estimated to take, in nanoseconds a query, where there was a choice.
    pub walk_estimate_ns: Option<f64>,
    /// What an exact search was estimated to take, in nanoseconds a query, where there was a choice.
    pub exact_estimate_ns: Option<f64>,
    /// Queries that walked through the graph.
    pub walked: usize,
    /// Those among them whose walk was thrown away, so that they were answered exactly.
    pub discarded: usize,
    /// Queries answered exactly by 8-bit codes.
    pub by_codes: usize,
    /// Queries answered exactly by float32 products.
    pub by_floats: usize,
    /// Queries answered exactly by the float64 distances of all rows that may answer.
    pub by_float64: usize,
    /// Rows that were scored by codes or float32 products.
    pub scored: u64,
    /// Rows whose float64 distance was computed.
    pub judged: u64,
    /// Milliseconds of the whole call, on one thread.
    pub milliseconds: f64,
    /// Milliseconds that the filter took, where there is one.
    pub filter_milliseconds: f64,
    /// Milliseconds of the walks.
    pub walk_milliseconds: f64,
    /// Milliseconds of the exact searches.
    pub exact_milliseconds: f64,
    /// Whether each query's answers are proven to be the exact ones.
    pub exact: Vec<bool>,
    /// Why it went this way, in sentences.
    pub reasons: Vec<String>,
}

impl Index<'_> {
    /// Searches as [`Index::search_with`] does, on one thread, and tells which way it went and why.
    ///
    /// ```
    /// use omendb::{Index, Metric, Options, Rows, Run};
    ///
    /// let x: Vec<f32> = (0..9000).map(|i| (i * i % 97) as f32).collect();
    /// let index = Index::new(Rows::borrow(&x, 3)?, Metric::Euclidean)?;
    /// let query = Rows::borrow(&[1.0f32, 2.0, 3.0], 3)?;
    /// let explanation = index.explain(&query, 10, Options::new(), Run::new())?;
    /// assert_eq!(explanation.by_codes, 1);
    /// assert!(explanation.judged < 3000);
    /// println!("{explanation}");
    /// # Ok::<(), omendb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Index::search_with`].
    pub fn explain(
        &self,
        queries: &Rows<'_>,
        k: usize,
        options: Options<'_>,
        run: Run<'_>,
    ) -> Result<Explanation> {
        let (_, monitor) = run.parts()?;
        let milliseconds = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        let goal = Goal::Nearest(k);
        let (state, selection) = self.asked(queries, goal, &options)?;
        let filter_milliseconds = options.filter.map_or(0.0, |_| milliseconds(start));
        let tally = Tally::default();
        let corpus = Corpus { tally: Some(&tally), ..self.corpus(&state, selection.as_deref()) };
        let mut hits = Hits::default();
        self.answer_from(&state, corpus, queries, goal, &options, (1, monitor), &mut hits)?;
        let milliseconds = milliseconds(start);
        let allowed = corpus.candidates();
        let counts = tally.into_counts();
        Ok(Explanation {
            queries: queries.len(),
            k: hits.k,
            rows: state.len(),
            allowed,
            effort: counts.plan.map(|plan| plan.effort),
            walk_estimate_ns: counts.plan.map(|plan| plan.walk_ns),
            exact_estimate_ns: counts.plan.map(|plan| plan.exact_ns),
            walked: counts.walked,
            discarded: counts.discarded,
            by_codes: counts.by_codes,
            by_floats: counts.by_floats,
            by_float64: counts.by_judge,
            scored: counts.scored,
            judged: counts.judged,
            milliseconds,
            filter_milliseconds,
            walk_milliseconds: counts.walk_ns as f64 / 1e6,
            exact_milliseconds: counts.exact_ns as f64 / 1e6,
            exact: hits.exact,
            reasons: self.reasons(&state, options, queries.len(), allowed, &counts),
        })
    }

    fn reasons(
        &self,
        state: &State,
        options: Options<'_>,
        queries: usize,
        allowed: usize,
        counts: &Counts,
    ) -> Vec<String> {
        let mut reasons = Vec::new();
        if options.filter.is_some() {
            let (share, all) = (percent(allowed, state.len()), grouped(state.len()));
            reasons.push(format!(
                "the filter lets {} of {all} rows answer, {share}",
                grouped(allowed)
            ));
        }
        if queries == 0 || allowed == 0 {
            reasons.push("there was nothing to look for".into());
            return reasons;
        }
        match counts.plan {
            Some(plan) => {
                let (walk, exact) = (plan.walk_ns / 1e3, plan.exact_ns / 1e3);
                reasons.push(format!(
                    "for each query of such a batch, a walk through the graph was estimated at {walk:.0} µs \
                     and an exact search at {exact:.0} µs"
                ));
                let pays = plan.walk_ns < plan.exact_ns;
                if plan.walks && !pays {
                    reasons.push("the walk was asked for, although it costs more".into());
                } else if !plan.walks && options.method == Method::Graph {
                    reasons.push(
                        "a walk was asked for, but so few rows may answer that looking at all of them \
                         costs less"
                            .into(),
                    );
                }
            }
            None if counts.brief > 0 => reasons.push(
                "there is so little to look at that every row was judged at once, without codes".into(),
            ),
            None if options.method == Method::Exact => {
                reasons.push("an exact search was asked for".into());
            }
            None if state.seed.is_some() => reasons.push(
                "no graph was made: codes do not tell near rows apart here, so every search is exact"
                    .into(),
            ),
            None => reasons.push("there is no graph, so the search was exact".into()),
        }
        if counts.discarded > 0 {
            reasons.push(format!(
                "{} of {} walks did not come to where the answers lie, or found fewer than there are; \
                 those queries were answered exactly",
                grouped(counts.discarded),
                grouped(counts.walked.max(counts.discarded))
            ));
        }
        if counts.by_floats > 0 {
            let what = if counts.probe_failed { "the first of them" } else { "them" };
            reasons.push(format!(
                "codes ruled out too few rows for {what}, so that float32 products answered {}",
                number(counts.by_floats, "query", "queries")
            ));
        }
        if counts.by_judge > counts.brief {
            reasons.push(if !self.metric.is_product() {
                format!("{} has no codes: every row is judged in float64", self.metric)
            } else if state.encoder.is_none() {
                "the rows have no codes (no rows, or numbers beyond float32): each is judged in float64"
                    .into()
            } else if counts.few {
                "so few rows may answer that each was judged in float64".into()
            } else {
                "queries have numbers so large or small that every row was judged in float64".into()
            });
        }
        reasons
    }
}

/// A number with commas between thousands.
pub(super) fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many things, in words.
pub(super) fn number(count: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// A share in per cent, never rounded to all or nothing.
pub(super) fn percent(part: usize, whole: usize) -> String {
    if part == 0 || part >= whole {
        return if part == 0 { "0 %".into() } else { "100 %".into() };
    }
    format!("{:.2} %", (100.0 * part as f64 / whole as f64).clamp(0.01, 99.99))
}

impl Explanation {
    /// What was done, in a few words.
    pub fn way(&self) -> String {
        let walks = self.walked - self.discarded.min(self.walked);
        let ways = [
            (walks, "a walk through the graph"),
            (self.by_codes, "an exact sweep of 8-bit codes"),
            (self.by_floats, "an exact sweep of float32 products"),
            (self.by_float64, "float64 distances of all rows that may answer"),
        ];
        let ways: Vec<_> = ways.into_iter().filter(|(queries, _)| *queries > 0).collect();
        match ways[..] {
            [] => "nothing to do".into(),
            [(_, way)] => way.into(),
            _ => {
                let part =
                    |(queries, way): &(usize, &str)| format!("{} by {way}", grouped(*queries));
                ways.iter().map(part).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// Names and values, as a table shows them.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let each = |total: u64| {
            let mean = total as f64 / self.queries.max(1) as f64;
            if self.queries == 1 {
                grouped(total)
            } else if mean < 1000.0 {
                format!("{mean:.1} a query")
            } else {
                format!("{} a query", grouped(mean.round() as u64))
            }
        };
        let exact = self.exact.iter().filter(|&&exact| exact).count();
        let mut facts = vec![
            ("way", self.way()),
            ("may answer", format!("{} of {} rows", grouped(self.allowed), grouped(self.rows))),
        ];
        if let Some(effort) = self.effort.filter(|_| self.walked > 0) {
            facts.push(("effort", grouped(effort)));
        }
        let mut took = format!("{:.3}", self.milliseconds);
        for (part, of) in [
            (self.filter_milliseconds, "filter"),
            (self.walk_milliseconds, "walk"),
            (self.exact_milliseconds, "exact search"),
        ] {
            if part > 0.0 {
                // Writing to a string cannot fail.
                let _ = write!(took, ", {of} {part:.3}");
            }
        }
        facts.extend([
            ("rows scored", each(self.scored)),
            ("rows judged", format!("{} in float64", each(self.judged))),
            ("milliseconds", took),
            (
                "exact",
                match (exact, self.queries) {
                    (1, 1) => "yes".into(),
                    (0, 1) => "no".into(),
                    (exact, n) => format!("{} of {} queries", grouped(exact), grouped(n)),
                },
            ),
        ]);
        facts
    }

    /// What stands above that table.
    pub(crate) fn title(&self) -> String {
        format!("Explanation: {}, k = {}", number(self.queries, "query", "queries"), self.k)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table(f, &self.title(), &self.facts(), "why", &self.reasons)
    }
}

/// A title, names with values, and sentences.
pub(super) fn table(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    facts: &[(&'static str, String)],
    heading: &str,
    sentences: &[String],
) -> fmt::Result {
    write!(f, "{title}")?;
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in facts {
        write!(f, "\n  {name:width$}  {value}")?;
    }
    if !sentences.is_empty() {
        write!(f, "\n{heading}:")?;
    }
    sentences.iter().try_for_each(|sentence| write!(f, "\n  - {sentence}"))
}
