//! What a distance means.
//!
//! Smaller is closer, always: similarities are turned round here and nowhere else
//! (`inner_product` is minus the product, `cosine` one minus the cosine). Distances are defined
//! in float64 by the arithmetic of [`crate::kernels::float`]; this file maps those sums to the
//! public number.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A distance between two vectors; smaller is closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Metric {
    /// `√Σ(q−x)²`.
    #[default]
    Euclidean,
    /// `Σ(q−x)²`.
    SqEuclidean,
    /// `1 − ⟨q,x⟩ / (‖q‖‖x‖)`, between 0 and 2; 1 when either vector is zero.
    Cosine,
    /// `−⟨q,x⟩`.
    InnerProduct,
    /// `Σ|q−x|`.
    Manhattan,
    /// `max|q−x|`.
    Chebyshev,
}

/// Every name a metric answers to; the first of each metric is its canonical one.
const NAMES: [(&str, Metric); 14] = [
    ("euclidean", Metric::Euclidean),
    ("l2", Metric::Euclidean),
    ("sqeuclidean", Metric::SqEuclidean),
    ("cosine", Metric::Cosine),
    ("cos", Metric::Cosine),
    ("inner_product", Metric::InnerProduct),
    ("ip", Metric::InnerProduct),
    ("dot", Metric::InnerProduct),
    ("manhattan", Metric::Manhattan),
    ("cityblock", Metric::Manhattan),
    ("l1", Metric::Manhattan),
    ("chebyshev", Metric::Chebyshev),
    ("linf", Metric::Chebyshev),
    ("infinity", Metric::Chebyshev),
];

impl Metric {
    /// The canonical name, as `index.metric` shows it.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, metric)| *metric == self).map_or("", |(name, _)| name)
    }

    /// Whether inner products decide the order, so that 8-bit codes can bound the distance.
    pub(crate) fn is_product(self) -> bool {
        !matches!(self, Self::Manhattan | Self::Chebyshev)
    }

    /// Whether a distance can be told from the difference of two coded rows.
    pub(crate) fn is_of_differences(self) -> bool {
        self.is_euclidean() || self == Self::Cosine
    }

    /// Whether differences rather than products are summed.
    pub(crate) fn is_euclidean(self) -> bool {
        matches!(self, Self::Euclidean | Self::SqEuclidean)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let wanted = name.to_ascii_lowercase().replace(['-', ' '], "_");
        if let Some((_, metric)) = NAMES.iter().find(|(known, _)| *known == wanted) {
            return Ok(*metric);
        }
        let apart = |known: &str| edit_distance(known, &wanted);
        let nearest = NAMES.iter().map(|&(known, _)| known).min_by_key(|known| apart(known));
        // A typing error, and not another word.
        let nearest = nearest.filter(|known| 3 * apart(known) <= known.len());
        let hint = nearest.map_or(String::new(), |known| format!("did you mean '{known}'? "));
        Err(Error::invalid(format!(
            "unknown metric '{name}'; {hint}The metrics are euclidean, sqeuclidean, cosine, \
             inner_product, manhattan and chebyshev"
        )))
    }
}

/// Levenshtein's distance, to name the metric that a typing error was nearest to.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_alias_is_understood_and_a_typing_error_names_the_nearest() {
        for (name, metric) in NAMES {
            assert_eq!(name.parse::<Metric>(), Ok(metric));
            assert_eq!(metric.name().parse::<Metric>(), Ok(metric));
        }
        let message = "cosin".parse::<Metric>().unwrap_err().to_string();
        assert!(message.contains("did you mean 'cosine'"), "{message}");
        let message = "angular".parse::<Metric>().unwrap_err().to_string();
        assert!(message.starts_with("unknown metric 'angular'; The metrics are"), "{message}");
        let message = "inner-produkt".parse::<Metric>().unwrap_err().to_string();
        assert!(message.contains("did you mean 'inner_product'"), "{message}");
    }
}
