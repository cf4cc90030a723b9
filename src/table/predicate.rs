//! Predicates: which rows pass a condition on the columns of a table, in SQL's or pandas' spelling.
//!
//! ```text
//! section == 'games' and installed_size_kib < 500
//! (section = "games") & ~name.str.startswith('lib')
//! 1 < depends <= 5 or maintainer is null
//! released between '2024-01-01' and '2024-06-30T12:00' and section not in ['doc', 'libs']
//! ```
//!
//! # The language
//!
//! | | |
//! |---|---|
//! | compare | `=` `==` `!=` `<>` `<` `<=` `>` `>=`; a column with a value or another column; in chains: `1 < x <= 5` |
//! | combine | `and` `or` `not`, or `&` `\|` `~`; parentheses |
//! | values | `x in (1, 2)`, `x not in ['a', 'b']`, `x.isin([1, 2])` |
//! | ranges | `x between 1 and 5`, `x not between 1 and 5`, `x.between(1, 5)`; both ends belong to it |
//! | texts | `startswith(x, 'a')`, `endswith(x, 'a')`, `contains(x, 'a')`; as methods `x.startswith('a')` and `x.str.startswith('a')` |
//! | patterns | `x like 'a%'`, `x not like '_b'`, `x ilike 'A%'` (any case); `%` is any text, `_` one character; `like '50!%' escape '!'` |
//! | missing | `x is null`, `x is not null`, `isnull(x)`, `x.notnull()`, `x.isna()`, `x.notna()` |
//! | truth | a column of booleans alone, `x = true`, `x is false`, `x is not true`; `true` and `false` alone |
//!
//! Words of the language may be written in any case, names of columns in theirs alone.
//!
//! **Columns** are named bare (letters of any script, digits, `_`, and dots between them), in
//! `` `backticks` `` or in `"double quotes"`, where any name fits. **Texts** stand in 'single quotes';
//! a quote inside is doubled (`'it''s'`), and a backslash is itself. A word in double quotes is
//! a column in SQL and a text in pandas. Here it is the column if one has that name, else a text,
//! if it is compared with a column of texts or times; where both readings make sense, it is an error.
//!
//! **`and`, `or` and `not` bind as usual**, `not` closest, and comparisons closer than all three. `&` is
//! `and` and `|` is `or` in everything, as in `DataFrame.query`: `x > 1 & y > 1` needs no parentheses. `~`
//! binds to what follows it immediately, so that `~x == y` is refused.
//!
//! **Missing values** follow SQL: a comparison with a null is neither true nor false, nor is its negation,
//! and a row passes only if the whole is true. So `x != 1` and `not x = 1` leave out rows where x is null
//! (pandas would keep them); `x is null` finds them. Comparing with a written `null` is an error.
//!
//! **Numbers** are compared exactly, integers and decimals of any size with any literal: `x < 2.5` with integers
//! is `x <= 2`, `x = 2.5` never. A literal that is compared with floats is first rounded to the column's
//! type, as NumPy does, so that float32 columns find `0.1`. NaN is a number, not a null: it passes `!=` alone,
//! and negations of the other comparisons. `-0.0` equals `0`.
//!
//! **Texts** compare by code points, like Python's. **Dates and times** are written as texts:
//! `'2024-05-01'`, `'2024-05-01 12:30'`, `'2024-05-01T12:30:15.123456789'`; a date alone is its midnight.
//! Columns with a time zone take an offset (`'2024-05-01T12:30Z'`, `'2024-05-01 12:30+02:00'`); without
//! one it must be a zone of a fixed offset, like UTC. Columns of times take `'12:30'` or `'12:30:15.5'`.
//!
//! **UUIDs**, and other columns of 16 bytes, are written as texts of their 32 hexadecimal digits, with hyphens or
//! without.
//!
//! **Types**: booleans, integers, float16 to float64, decimals up to 128 bits, texts, dates, times, timestamps,
//! UUIDs, and dictionaries of these; by an order of their own, where they have one, nothing is compared but refused.
//! Any other column can only be asked for nulls.
//!
//! **Refused**, with a message: arithmetic, other functions, casts, subqueries, statements, comments, values
//! of Python (`@x`), regular expressions (`x.str.contains('a.b')`, unless `regex=False` follows), texts
//! over 1 MiB and parentheses deeper than 100. Long chains are fine: 10,000 terms take milliseconds.
//!
//! # How it is done
//!
//! `parse` makes a tree in which `not` stands at the leaves alone, by De Morgan's laws, which hold for three
//! values as well. A leaf passes where its test, or the test's opposite, is true and the row is not null.
//! So no third value is ever stored, and one bitmap per node is all. Literals become numbers of the column's own
//! unit before any row is looked at. Dictionaries are asked once for each of their values.
//!
//! `sqlparser` cuts the text into tokens, and the grammar above them is ours. Its parser takes
//! all of SQL, of which nearly everything would have to be refused again, costs 1.6 MB
//! of machine code, and drops long chains by recursion: 100,000 terms and a syntax error at their end overflow
//! the stack. Arrow's own comparisons order floats totally (`-0.0 < 0.0`, `NaN = NaN`) and cost 1.9 MB,
//! its `like` brings regular expressions and costs 3.2 MB (each alone, stripped, with fat link-time optimisation).

mod literal;
mod parse;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use ahash::RandomState;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type,
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, BooleanArray, GenericStringArray, OffsetSizeTrait, PrimitiveArray, RecordBatch,
};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder, NullBuffer};
use arrow_schema::{DataType, Fields, Schema, TimeUnit};
use memchr::memmem::Finder;

use self::literal::{Pattern, Simple};
use crate::error::{Error, Result};
use crate::threads::{Silent, run};

/// Nanoseconds in a second.
const SECOND: i128 = 1_000_000_000;
/// Rows for which another thread pays: with fewer it takes as long to begin.
const WORTH_A_THREAD: usize = 1 << 14;
/// So many values are compared one by one; more are looked up.
const FEW: usize = 8;

/// A condition on the rows of a table, read once and asked of any number of batches.
#[derive(Debug)]
pub(crate) struct Predicate {
    fields: Fields,
    root: Node,
}

impl Predicate {
    /// Reads a predicate on columns of the schema; the head of this file is the language.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if the text is none, names columns that are not there, or compares what cannot be.
    pub(crate) fn parse(text: &str, schema: &Schema) -> Result<Self> {
        Ok(Self { fields: schema.fields().clone(), root: parse::parse(text, schema)? })
    }

    /// The rows of the batch that pass, asked on up to so many threads.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if the batch has other columns than the schema that it was read for.
    pub(crate) fn evaluate(&self, batch: &RecordBatch, threads: usize) -> Result<BooleanBuffer> {
        let same = |(a, b): (&Arc<_>, &Arc<_>)| is_same(a, b);
        let fields = batch.schema_ref().fields();
        if fields.len() != self.fields.len() || !fields.iter().zip(&self.fields).all(same) {
            return Err(Error::invalid(
                "the predicate was read for other columns than this batch of rows has",
            ));
        }
        let rows = batch.num_rows();
        let part = rows.div_ceil(threads.min(rows / WORTH_A_THREAD).max(1)).max(1);
        let passed = run(threads, rows.div_ceil(part), 0, &mut Silent, |i, _| {
            self.root.passes(&batch.slice(i * part, part.min(rows - i * part)))
        })?;
        let mut bits = BooleanBufferBuilder::new(rows);
        passed.iter().for_each(|passed| bits.append_buffer(passed));
        Ok(bits.build())
    }
}

fn is_same(a: &arrow_schema::Field, b: &arrow_schema::Field) -> bool {
    a.name() == b.name() && a.data_type() == b.data_type()
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Fixed(bool),
    Leaf(Leaf),
    All(Vec<Node>),
    Any(Vec<Node>),
}

/// One test of one column, or its opposite.
#[derive(Debug, Clone, PartialEq)]
struct Leaf {
    column: usize,
    test: Test,
    negated: bool,
}

/// What is true or false of every value that is not null. What is missing here is an opposite:
/// `x > 5` of integers is not `x <= 5`. Floats need all four orders, because of NaN.
#[derive(Debug, Clone, PartialEq)]
enum Test {
    /// Null (`None`) or the given boolean; true or false of nulls too.
    Is(Option<bool>),
    True,
    Among(Values),
    AtMost(i128),
    Float(Op, f64),
    Below {
        text: String,
        or_equal: bool,
    },
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    Like(Pattern),
    /// Compared with another column.
    Column(Op, usize),
}

/// Values to be equal to, numbers ascending and each once; whole ones are in the column's own unit.
#[derive(Debug, Clone, PartialEq)]
enum Values {
    Exact(Vec<i128>),
    Float(Vec<f64>),
    Text(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Op {
    /// Whether it is true of things in this order; NaN has none.
    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Eq => order == Some(Ordering::Equal),
            Self::Ne => order != Some(Ordering::Equal),
            Self::Lt => order == Some(Ordering::Less),
            Self::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Gt => order == Some(Ordering::Greater),
            Self::Ge => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }

    /// The same comparison with its sides exchanged.
    fn flipped(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            same => same,
        }
    }
}

/// What a type means to a comparison.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Bool,
    /// Whole numbers of 10^-scale.
    Exact {
        scale: i8,
    },
    Float,
    Text,
    /// Whole numbers of so many nanoseconds since 1970, in a time zone or in none.
    Moment {
        unit: i128,
        zone: Option<Arc<str>>,
    },
    /// Whole numbers of so many nanoseconds since midnight.
    Clock {
        unit: i128,
    },
    /// Sixteen bytes, in the order of their hexadecimal digits.
    Uuid,
    Other,
}

impl Kind {
    fn of(data_type: &DataType) -> Self {
        use DataType as T;
        let nanoseconds = |unit: &TimeUnit| match unit {
            TimeUnit::Second => SECOND,
            TimeUnit::Millisecond => 1_000_000,
            TimeUnit::Microsecond => 1_000,
            TimeUnit::Nanosecond => 1,
        };
        match data_type {
            T::Boolean => Self::Bool,
            T::Int8
            | T::Int16
            | T::Int32
            | T::Int64
            | T::UInt8
            | T::UInt16
            | T::UInt32
            | T::UInt64 => Self::Exact { scale: 0 },
            &(T::Decimal32(_, scale) | T::Decimal64(_, scale) | T::Decimal128(_, scale)) => {
                Self::Exact { scale }
            }
            T::Float16 | T::Float32 | T::Float64 => Self::Float,
            T::Utf8 | T::LargeUtf8 | T::Utf8View => Self::Text,
            T::Date32 => Self::Moment { unit: 86_400 * SECOND, zone: None },
            T::Date64 => Self::Moment { unit: 1_000_000, zone: None },
            T::Timestamp(unit, zone) => {
                Self::Moment { unit: nanoseconds(unit), zone: zone.clone() }
            }
            T::Time32(unit) | T::Time64(unit) => Self::Clock { unit: nanoseconds(unit) },
            T::FixedSizeBinary(16) => Self::Uuid,
            T::Dictionary(_, values) => Self::of(values),
            _ => Self::Other,
        }
    }
}

impl Node {
    fn passes(&self, batch: &RecordBatch) -> BooleanBuffer {
        let rows = batch.num_rows();
        match self {
            Self::Fixed(value) => fixed(rows, *value),
            Self::Leaf(leaf) => leaf.passes(batch),
            Self::All(nodes) => {
                let mut passed = fixed(rows, true);
                for node in nodes {
                    passed &= &node.passes(batch);
                    if passed.count_set_bits() == 0 {
                        break;
                    }
                }
                passed
            }
            Self::Any(nodes) => {
                let mut passed = fixed(rows, false);
                for node in nodes {
                    passed |= &node.passes(batch);
                    if passed.count_set_bits() == rows {
                        break;
                    }
                }
                passed
            }
        }
    }
}

impl Leaf {
    fn passes(&self, batch: &RecordBatch) -> BooleanBuffer {
        let array = batch.column(self.column);
        let &Test::Column(op, other) = &self.test else {
            return self.passes_alone(array.as_ref());
        };
        let other = batch.column(other);
        let nulls =
            NullBuffer::union(array.logical_nulls().as_ref(), other.logical_nulls().as_ref());
        let (a, b) = (Lane::of(array.as_ref()), Lane::of(other.as_ref()));
        let is_null = |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        // What lies under a null may be anything, also a key beyond its dictionary.
        BooleanBuffer::collect_bool(batch.num_rows(), |row| {
            !is_null(row) && op.holds(a.compare(&b, row)) != self.negated
        })
    }

    fn passes_alone(&self, array: &dyn Array) -> BooleanBuffer {
        let Some(dictionary) = array.as_any_dictionary_opt() else {
            let bits = self.test.bits(array);
            let bits = if self.negated { !&bits } else { bits };
            return match array.logical_nulls() {
                Some(nulls) if !matches!(self.test, Test::Is(_)) => &bits & nulls.inner(),
                _ => bits,
            };
        };
        let (keys, values) = (dictionary.keys(), dictionary.values());
        let passed = if values.is_empty() {
            fixed(keys.len(), false) // all rows are null
        } else {
            let passed: Vec<bool> = self.passes_alone(values).iter().collect();
            let key = dictionary.normalized_keys();
            BooleanBuffer::collect_bool(key.len(), |row| passed[key[row]])
        };
        match keys.nulls() {
            Some(nulls) if self.passes_null() => &passed | &!nulls.inner(),
            Some(nulls) => &passed & nulls.inner(),
            None => passed,
        }
    }

    fn passes_null(&self) -> bool {
        matches!(self.test, Test::Is(value) if value.is_none() != self.negated)
    }
}

fn fixed(rows: usize, value: bool) -> BooleanBuffer {
    if value { BooleanBuffer::new_set(rows) } else { BooleanBuffer::new_unset(rows) }
}

/// Runs the body with an array of whole numbers, whatever is counted by them, in its own type.
macro_rules! whole_numbers {
    ($array:expr, $typed:ident => $body:expr) => {
        whole_numbers!(@ $array, $typed => $body,
            DataType::Int8 => Int8Type, DataType::Int16 => Int16Type,
            DataType::Int32 => Int32Type, DataType::Int64 => Int64Type,
            DataType::UInt8 => UInt8Type, DataType::UInt16 => UInt16Type,
            DataType::UInt32 => UInt32Type, DataType::UInt64 => UInt64Type,
            DataType::Decimal32(..) => Decimal32Type, DataType::Decimal64(..) => Decimal64Type,
            DataType::Decimal128(..) => Decimal128Type,
            DataType::Date32 => Date32Type, DataType::Date64 => Date64Type,
            DataType::Time32(TimeUnit::Second) => Time32SecondType,
            DataType::Time32(TimeUnit::Millisecond) => Time32MillisecondType,
            DataType::Time64(TimeUnit::Microsecond) => Time64MicrosecondType,
            DataType::Time64(TimeUnit::Nanosecond) => Time64NanosecondType,
            DataType::Timestamp(TimeUnit::Second, _) => TimestampSecondType,
            DataType::Timestamp(TimeUnit::Millisecond, _) => TimestampMillisecondType,
            DataType::Timestamp(TimeUnit::Microsecond, _) => TimestampMicrosecondType,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => TimestampNanosecondType)
    };
    (@ $array:expr, $typed:ident => $body:expr, $($pattern:pat => $type:ty),*) => {
        match $array.data_type() {
            $($pattern => { let $typed = $array.as_primitive::<$type>(); $body })*
            other => unreachable!("the parser takes {other} for no whole number"),
        }
    };
}

impl Test {
    /// Where it is true; under nulls anything.
    #[allow(clippy::float_cmp)] // what is asked for
    fn bits(&self, array: &dyn Array) -> BooleanBuffer {
        match self {
            Self::Is(None) => match array.logical_nulls() {
                Some(nulls) => !nulls.inner(),
                None => fixed(array.len(), false),
            },
            Self::Is(Some(value)) => {
                let bits = array.as_boolean().values();
                let bits = if *value { bits.clone() } else { !bits };
                array.nulls().map_or_else(|| bits.clone(), |nulls| &bits & nulls.inner())
            }
            Self::True => array.as_boolean().values().clone(),
            Self::Among(Values::Exact(values)) if is_uuid(array) => {
                uuids(array, |x| values.binary_search(&x).is_ok())
            }
            Self::AtMost(value) if is_uuid(array) => uuids(array, |x| x <= *value),
            Self::Among(Values::Exact(values)) => {
                whole_numbers!(array, typed => among(typed, values))
            }
            Self::AtMost(value) => whole_numbers!(array, typed => at_most(typed, *value)),
            Self::Among(Values::Float(values)) => match &values[..] {
                &[value] => floats(array, |x| x == value),
                _ => floats(array, |x| {
                    !x.is_nan() && values.binary_search_by(|v| v.total_cmp(&(x + 0.0))).is_ok()
                }),
            },
            &Self::Float(op, value) => match op {
                Op::Eq => floats(array, |x| x == value),
                Op::Ne => floats(array, |x| x != value),
                Op::Lt => floats(array, |x| x < value),
                Op::Le => floats(array, |x| x <= value),
                Op::Gt => floats(array, |x| x > value),
                Op::Ge => floats(array, |x| x >= value),
            },
            Self::Among(Values::Text(values)) => match &values[..] {
                [value] => texts(array, |text| text == value),
                few if few.len() <= FEW => texts(array, |text| few.iter().any(|v| v == text)),
                many => {
                    let many: HashSet<&str, RandomState> =
                        many.iter().map(String::as_str).collect();
                    texts(array, |text| many.contains(text))
                }
            },
            Self::Below { text: value, or_equal: true } => texts(array, |text| text <= &**value),
            Self::Below { text: value, or_equal: false } => texts(array, |text| text < &**value),
            Self::StartsWith(part) => texts(array, |text| text.starts_with(&**part)),
            Self::EndsWith(part) => texts(array, |text| text.ends_with(&**part)),
            Self::Contains(part) => {
                let finder = Finder::new(part);
                containing(array, part.len(), |bytes| finder.find(bytes))
            }
            Self::Like(pattern) => like(array, pattern),
            Self::Column(..) => unreachable!("it takes two columns"),
        }
    }
}

fn at_most<T>(array: &PrimitiveArray<T>, value: i128) -> BooleanBuffer
where
    T: ArrowPrimitiveType<Native: TryFrom<i128> + Ord>,
{
    match T::Native::try_from(value) {
        Ok(value) => BooleanArray::from_unary(array, |x| x <= value).into_parts().0,
        Err(_) => fixed(array.len(), value > 0), // beyond all that the type holds
    }
}

fn among<T>(array: &PrimitiveArray<T>, values: &[i128]) -> BooleanBuffer
where
    T: ArrowPrimitiveType<Native: TryFrom<i128> + Ord>,
{
    let values: Vec<_> = values.iter().filter_map(|&x| T::Native::try_from(x).ok()).collect();
    match values[..] {
        [] => fixed(array.len(), false),
        [value] => BooleanArray::from_unary(array, |x| x == value).into_parts().0,
        _ if values.len() <= FEW => {
            BooleanArray::from_unary(array, |x| values.contains(&x)).into_parts().0
        }
        _ => BooleanArray::from_unary(array, |x| values.binary_search(&x).is_ok()).into_parts().0,
    }
}

/// Every float is a float64, so that one kind of comparison serves all.
fn floats(array: &dyn Array, test: impl Fn(f64) -> bool) -> BooleanBuffer {
    let bits = match array.data_type() {
        DataType::Float16 => {
            BooleanArray::from_unary(array.as_primitive::<Float16Type>(), |x| test(x.to_f64()))
        }
        DataType::Float32 => {
            BooleanArray::from_unary(array.as_primitive::<Float32Type>(), |x| test(x.into()))
        }
        _ => BooleanArray::from_unary(array.as_primitive::<Float64Type>(), test),
    };
    bits.into_parts().0
}

fn is_uuid(array: &dyn Array) -> bool {
    Kind::of(array.data_type()) == Kind::Uuid
}

/// Sixteen bytes as a whole number in the same order.
fn uuid(digits: u128) -> i128 {
    (digits ^ 1 << 127) as i128
}

fn uuids(array: &dyn Array, test: impl Fn(i128) -> bool) -> BooleanBuffer {
    let Lane::Exact(value, _) = Lane::of(array) else { unreachable!("it is one of whole numbers") };
    BooleanBuffer::collect_bool(array.len(), |row| test(value(row)))
}

fn texts(array: &dyn Array, test: impl Fn(&str) -> bool) -> BooleanBuffer {
    let bits = match array.data_type() {
        DataType::Utf8 => BooleanArray::from_unary(array.as_string::<i32>(), test),
        DataType::LargeUtf8 => BooleanArray::from_unary(array.as_string::<i64>(), test),
        _ => BooleanArray::from_unary(array.as_string_view(), test),
    };
    bits.into_parts().0
}

/// Texts in which `find` finds so many bytes. Where texts lie one after another it looks through all of
/// them at once, which takes a third of the time.
fn containing(
    array: &dyn Array,
    len: usize,
    find: impl Fn(&[u8]) -> Option<usize>,
) -> BooleanBuffer {
    match array.data_type() {
        _ if len == 0 => fixed(array.len(), true),
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            containing_in_one(array.value_offsets(), bytes_of(array), len, find)
        }
        DataType::LargeUtf8 => {
            let array = array.as_string::<i64>();
            containing_in_one(array.value_offsets(), bytes_of(array), len, find)
        }
        _ => texts(array, |text| find(text.as_bytes()).is_some()),
    }
}

/// The bytes of texts that lie one after another.
fn bytes_of<O: OffsetSizeTrait>(array: &GenericStringArray<O>) -> &[u8] {
    let offsets = array.value_offsets();
    &array.value_data()[offsets[0].as_usize()..offsets[offsets.len() - 1].as_usize()]
}

/// One `find` after another in the bytes of all texts; what reaches from one text into the next is
/// passed over.
fn containing_in_one<O: OffsetSizeTrait>(
    offsets: &[O],
    bytes: &[u8],
    len: usize,
    find: impl Fn(&[u8]) -> Option<usize>,
) -> BooleanBuffer {
    let rows = offsets.len() - 1;
    let mut passed = BooleanBufferBuilder::new(rows);
    passed.append_n(rows, false);
    let offset = |row: usize| (offsets[row] - offsets[0]).as_usize();
    let (mut row, mut from) = (0, 0);
    while let Some(place) = find(&bytes[from..]) {
        let start = from + place;
        while offset(row + 1) < start + len {
            row += 1;
        }
        let inside = offset(row) <= start; // or else it begins in an earlier text
        passed.set_bit(row, passed.get_bit(row) || inside);
        from = if inside { offset(row + 1) } else { start + 1 };
    }
    passed.finish()
}

/// Texts that fit a pattern. What is asked for in any case is compared byte by byte in ASCII, where each
/// letter has one other form.
fn like(array: &dyn Array, pattern: &Pattern) -> BooleanBuffer {
    let all =
        |test: &dyn Fn(&[u8]) -> bool| {
            texts(array, |text| {
                if text.is_ascii() { test(text.as_bytes()) } else { pattern.matches(text) }
            })
        };
    match pattern.in_any_case() {
        Some(Simple::Equals(part)) => all(&|text| text.eq_ignore_ascii_case(part.as_bytes())),
        Some(Simple::StartsWith(part)) => all(&|text| {
            text.get(..part.len()).is_some_and(|text| text.eq_ignore_ascii_case(part.as_bytes()))
        }),
        Some(Simple::EndsWith(part)) => all(&|text| {
            let end = text.len().checked_sub(part.len()).map(|start| &text[start..]);
            end.is_some_and(|text| text.eq_ignore_ascii_case(part.as_bytes()))
        }),
        shape => {
            // A part that is all of the pattern tells of ASCII texts that they fit.
            let told = shape.is_some();
            let part = pattern.longest_part();
            match array.data_type() {
                DataType::Utf8 if !part.is_empty() => {
                    fitting(array.as_string::<i32>(), pattern, &part, told)
                }
                DataType::LargeUtf8 if !part.is_empty() => {
                    fitting(array.as_string::<i64>(), pattern, &part, told)
                }
                _ => texts(array, |text| pattern.matches(text)),
            }
        }
    }
}

/// Texts that fit a pattern in which a part stands. All are looked through for it at once, and what holds
/// it is compared; in any case also what is beyond ASCII, where a letter may have a third form (ſ is an s).
fn fitting<O: OffsetSizeTrait>(
    array: &GenericStringArray<O>,
    pattern: &Pattern,
    part: &str,
    told: bool,
) -> BooleanBuffer {
    let (offsets, bytes) = (array.value_offsets(), bytes_of(array));
    let with = |bytes: &[u8], part: &str| {
        let finder = Finder::new(part);
        containing_in_one(offsets, bytes, part.len(), |bytes| finder.find(bytes))
    };
    let found = if pattern.any_case() {
        let found = with(&bytes.to_ascii_lowercase(), &part.to_ascii_lowercase());
        &found | &containing_in_one(offsets, bytes, 1, beyond_ascii)
    } else {
        with(bytes, part)
    };
    let mut passed = BooleanBufferBuilder::new(found.len());
    passed.append_buffer(&found);
    for row in found.set_indices() {
        let text = array.value(row);
        passed.set_bit(row, told && text.is_ascii() || pattern.matches(text));
    }
    passed.finish()
}

/// Where the first byte beyond ASCII is.
fn beyond_ascii(bytes: &[u8]) -> Option<usize> {
    let mut blocks = bytes.chunks(64).enumerate();
    let (block, bytes) = blocks.find(|(_, block)| !block.is_ascii())?;
    Some(64 * block + bytes.iter().position(|byte| !byte.is_ascii())?)
}

/// A column read row by row, in a type that it has in common with what it is compared with.
enum Lane<'a> {
    Bool(Row<'a, bool>),
    Exact(Row<'a, i128>, u32),
    Float(Row<'a, f64>),
    Text(Row<'a, &'a str>),
}

type Row<'a, T> = Box<dyn Fn(usize) -> T + 'a>;

impl<'a> Lane<'a> {
    fn of(array: &'a dyn Array) -> Self {
        if let Some(dictionary) = array.as_any_dictionary_opt() {
            let values = dictionary.values();
            // Without values all rows are null, and none is asked for.
            let key = if values.is_empty() { vec![] } else { dictionary.normalized_keys() };
            return match Self::of(values) {
                Self::Bool(value) => Self::Bool(Box::new(move |row| value(key[row]))),
                Self::Exact(value, scale) => {
                    Self::Exact(Box::new(move |row| value(key[row])), scale)
                }
                Self::Float(value) => Self::Float(Box::new(move |row| value(key[row]))),
                Self::Text(value) => Self::Text(Box::new(move |row| value(key[row]))),
            };
        }
        match Kind::of(array.data_type()) {
            Kind::Bool => {
                let array = array.as_boolean();
                Self::Bool(Box::new(|row| array.value(row)))
            }
            #[allow(clippy::useless_conversion)] // for one of the types
            Kind::Exact { scale } => {
                let scale = u32::try_from(scale).unwrap_or(0); // the parser refuses negative ones
                whole_numbers!(array, typed => {
                    Self::Exact(Box::new(|row| i128::from(typed.value(row))), scale)
                })
            }
            // 64 bits of days are still far from 128 bits of nanoseconds.
            #[allow(clippy::useless_conversion)] // for one of the types
            Kind::Moment { unit, .. } | Kind::Clock { unit } => whole_numbers!(array, typed => {
                Self::Exact(Box::new(move |row| i128::from(typed.value(row)) * unit), 0)
            }),
            Kind::Float => match array.data_type() {
                DataType::Float16 => {
                    let array = array.as_primitive::<Float16Type>();
                    Self::Float(Box::new(|row| array.value(row).to_f64()))
                }
                DataType::Float32 => {
                    let array = array.as_primitive::<Float32Type>();
                    Self::Float(Box::new(|row| array.value(row).into()))
                }
                _ => {
                    let array = array.as_primitive::<Float64Type>();
                    Self::Float(Box::new(|row| array.value(row)))
                }
            },
            Kind::Text => match array.data_type() {
                DataType::Utf8 => {
                    let array = array.as_string::<i32>();
                    Self::Text(Box::new(|row| array.value(row)))
                }
                DataType::LargeUtf8 => {
                    let array = array.as_string::<i64>();
                    Self::Text(Box::new(|row| array.value(row)))
                }
                _ => {
                    let array = array.as_string_view();
                    Self::Text(Box::new(|row| array.value(row)))
                }
            },
            Kind::Uuid => {
                let array = array.as_fixed_size_binary();
                let digits =
                    |row| array.value(row).iter().fold(0, |all, &byte| all << 8 | u128::from(byte));
                Self::Exact(Box::new(move |row| uuid(digits(row))), 0)
            }
            Kind::Other => unreachable!("the parser compares no such column"),
        }
    }

    fn compare(&self, other: &Self, row: usize) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a(row).cmp(&b(row))),
            (Self::Text(a), Self::Text(b)) => Some(a(row).cmp(b(row))),
            (Self::Float(a), Self::Float(b)) => a(row).partial_cmp(&b(row)),
            (Self::Exact(a, a_scale), Self::Exact(b, b_scale)) => {
                Some(compare_scaled((a(row), *a_scale), (b(row), *b_scale)))
            }
            (Self::Exact(a, _), Self::Float(b)) => compare_with_float(a(row), b(row)),
            (Self::Float(a), Self::Exact(b, _)) => {
                compare_with_float(b(row), a(row)).map(Ordering::reverse)
            }
            _ => unreachable!("the parser compares no such columns"),
        }
    }
}

/// The order of a·10^-scale, exactly; scales are at most 38.
fn compare_scaled((a, a_scale): (i128, u32), (b, b_scale): (i128, u32)) -> Ordering {
    if a_scale == b_scale {
        return a.cmp(&b);
    }
    let (a_one, b_one) = (10_i128.pow(a_scale), 10_i128.pow(b_scale));
    let fine = a_scale.max(b_scale);
    // A fraction has fewer than 38 digits at either scale, the whole may have more at the finer.
    let fraction = |x: i128, one: i128, scale| x.rem_euclid(one) * 10_i128.pow(fine - scale);
    (a.div_euclid(a_one).cmp(&b.div_euclid(b_one)))
        .then_with(|| fraction(a, a_one, a_scale).cmp(&fraction(b, b_one, b_scale)))
}

/// The order of an integer of 64 bits and a float, without rounding either.
fn compare_with_float(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // Integral floats up to 2^127 are exact in 128 bits, and `as` keeps all others at the ends.
    Some(
        a.cmp(&(b.trunc() as i128))
            .then_with(|| 0.0.partial_cmp(&b.fract()).unwrap_or(Ordering::Equal)),
    )
}
