//! Texts with the rows that they let pass; drawn predicates against an evaluator of single rows;
//! what is refused, and in which words; texts made to break a parser.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringDictionaryBuilder};
use arrow_array::types::{Int8Type, Int16Type};
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Date64Array, Decimal128Array, DictionaryArray,
    Float16Array, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, LargeStringArray,
    NullArray, RecordBatch, StringArray, StringViewArray, Time32SecondArray, Time64NanosecondArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow_schema::{Field, Schema};
use half::f16;

use super::Predicate;

const TWO_53: i64 = 1 << 53;
const HOUR: i64 = 3600;
/// 2024-05-01, as days since 1970.
const DAY: i32 = 19_844;

fn named(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let field =
        |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(schema), arrays).unwrap()
}

/// Six rows; the fifth (4) is null in most columns.
fn table() -> RecordBatch {
    let names = [Some("alpha"), Some("Beta"), Some("it's"), Some(""), None, Some("übër")];
    // A null may be a key's or a value's, and a key under a null may be anything.
    let values = StringArray::from(vec![Some("games"), None, Some("doc"), Some("unused")]);
    let keys = Int8Array::new(
        vec![0, 2, 1, 0, 100, 2].into(),
        Some(vec![true, true, true, true, false, true].into()),
    );
    let section = DictionaryArray::<Int8Type>::new(keys, Arc::new(values));
    let seconds = |hours: [i64; 5]| {
        let start = i64::from(DAY) * 24 * HOUR;
        let [a, b, c, d, e] = hours.map(|hour| Some(start + hour * HOUR));
        vec![a, b, c, d, None, e]
    };
    let scaled = |unit: i64| -> Vec<Option<i64>> {
        seconds([0, 1, 12, 24, -1]).iter().map(|x| x.map(|x| x * unit)).collect()
    };
    let decimal = vec![Some(0), Some(150), Some(-150), Some(99_999), None, Some(1)];
    let mut binary = BinaryBuilder::new();
    (0..6).for_each(|i| binary.append_option(if i == 4 { None } else { Some([i]) }));
    named(vec![
        ("id", Arc::new(Int64Array::from(vec![0, 1, 2, 3, 4, 5]))),
        ("x", Arc::new(Int32Array::from(vec![Some(1), Some(2), Some(3), Some(-4), None, Some(5)]))),
        (
            "tiny",
            Arc::new(Int8Array::from(vec![Some(-128), Some(127), Some(0), Some(1), None, Some(2)])),
        ),
        (
            "big",
            Arc::new(UInt64Array::from(vec![
                Some(0),
                Some(1 << 63),
                Some(u64::MAX),
                Some(5),
                None,
                Some(1 << 53),
            ])),
        ),
        (
            "exact",
            Arc::new(Int64Array::from(vec![
                Some(TWO_53),
                Some(TWO_53 + 1),
                Some(-TWO_53 - 1),
                Some(i64::MIN),
                None,
                Some(i64::MAX),
            ])),
        ),
        (
            "f",
            Arc::new(Float64Array::from(vec![
                Some(0.0),
                Some(-0.0),
                Some(f64::NAN),
                Some(2.5),
                None,
                Some(f64::INFINITY),
            ])),
        ),
        (
            "f32",
            Arc::new(Float32Array::from(vec![
                Some(0.1),
                Some(0.2),
                Some(f32::MAX),
                Some(-1.0),
                None,
                Some(f32::INFINITY),
            ])),
        ),
        (
            "f16",
            Arc::new(Float16Array::from_iter(
                [Some(0.1), Some(2.0), Some(-2.0), Some(0.0), None, Some(65504.0)]
                    .map(|x| x.map(f16::from_f64)),
            )),
        ),
        ("name", Arc::new(StringArray::from(names.to_vec()))),
        ("large", Arc::new(LargeStringArray::from(names.to_vec()))),
        ("view", Arc::new(StringViewArray::from(names.to_vec()))),
        ("section", Arc::new(section)),
        (
            "flag",
            Arc::new(BooleanArray::from(vec![
                Some(true),
                Some(false),
                None,
                Some(true),
                Some(false),
                Some(true),
            ])),
        ),
        ("flag2", Arc::new(BooleanArray::from(vec![true, true, true, false, false, false]))),
        (
            "day",
            Arc::new(Date32Array::from(vec![
                Some(DAY),
                Some(DAY + 1),
                Some(0),
                Some(-1),
                None,
                Some(DAY - 1),
            ])),
        ),
        ("day64", Arc::new(Date64Array::from(scaled(1000)))),
        ("seen", Arc::new(TimestampMicrosecondArray::from(scaled(1_000_000)))),
        ("seconds", Arc::new(TimestampSecondArray::from(scaled(1)))),
        (
            "utc",
            Arc::new(TimestampNanosecondArray::from(scaled(1_000_000_000)).with_timezone("UTC")),
        ),
        ("east", Arc::new(TimestampSecondArray::from(scaled(1)).with_timezone("+02:00"))),
        ("berlin", Arc::new(TimestampSecondArray::from(scaled(1)).with_timezone("Europe/Berlin"))),
        (
            "clock",
            Arc::new(Time64NanosecondArray::from(vec![
                Some(0),
                Some(1),
                Some(45_000_000_000_000),
                Some(86_399_999_999_999),
                None,
                Some(45_015_500_000_000),
            ])),
        ),
        (
            "clock32",
            Arc::new(Time32SecondArray::from(vec![
                Some(0),
                Some(1),
                Some(45_000),
                Some(86_399),
                None,
                Some(45_015),
            ])),
        ),
        (
            "price",
            Arc::new(
                Decimal128Array::from(decimal.clone()).with_precision_and_scale(10, 2).unwrap(),
            ),
        ),
        (
            "fine",
            Arc::new(
                Decimal128Array::from(vec![
                    Some(0),
                    Some(1_500_000),
                    Some(-1_500_001),
                    Some(7),
                    None,
                    Some(10_000),
                ])
                .with_precision_and_scale(38, 6)
                .unwrap(),
            ),
        ),
        (
            "thousands",
            Arc::new(
                Decimal128Array::from(vec![Some(0), Some(1), Some(2), Some(-1), None, Some(3)])
                    .with_precision_and_scale(10, -3)
                    .unwrap(),
            ),
        ),
        ("blob", Arc::new(binary.finish())),
        ("nothing", Arc::new(NullArray::new(6))),
        ("installed size", Arc::new(Int32Array::from(vec![10, 20, 30, 40, 50, 60]))),
        ("größe", Arc::new(Int32Array::from(vec![1, 1, 2, 2, 3, 3]))),
        ("हिन्दी", Arc::new(Int32Array::from(vec![1, 0, 0, 0, 0, 0]))),
        ("a.b", Arc::new(Int32Array::from(vec![7, 7, 7, 8, 8, 8]))),
        ("select", Arc::new(Int32Array::from(vec![0, 0, 0, 0, 0, 1]))),
        ("tail", Arc::new(StringArray::from(vec!["a", "Beta", "b", "", "c", "über"]))),
        ("say \"hi\"", Arc::new(Int32Array::from(vec![0, 1, 0, 0, 0, 0]))),
        (
            "numbers",
            Arc::new(DictionaryArray::<Int16Type>::new(
                vec![0, 1, 2, 0, 1, 2].into(),
                Arc::new(Int64Array::from(vec![Some(10), None, Some(30)])),
            )),
        ),
        (
            "flags",
            Arc::new(DictionaryArray::<Int8Type>::new(
                Int8Array::from(vec![Some(0), Some(1), Some(2), None, Some(0), Some(1)]),
                Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            )),
        ),
        (
            "empty",
            Arc::new(
                StringDictionaryBuilder::<Int8Type>::new()
                    .tap(|b| (0..6).for_each(|_| b.append_null()))
                    .finish(),
            ),
        ),
    ])
}

trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl<T> Tap for T {}

fn passes(batch: &RecordBatch, text: &str) -> Vec<usize> {
    let predicate =
        Predicate::parse(text, batch.schema_ref()).unwrap_or_else(|e| panic!("{text}: {e}"));
    let bits = predicate.evaluate(batch).unwrap();
    assert_eq!(bits.len(), batch.num_rows());
    bits.set_indices().collect()
}

fn refusal(batch: &RecordBatch, text: &str) -> String {
    match Predicate::parse(text, batch.schema_ref()) {
        Ok(predicate) => panic!("{text}: read as {predicate:?}"),
        Err(error) => error.to_string(),
    }
}

/// Each text with the rows that pass it, and the rows that pass its negation.
#[test]
fn predicates_pass_the_rows_that_they_describe() {
    type Case = (&'static str, &'static [usize], &'static [usize]);
    let cases: &[Case] = &[
        // comparisons of integers, on either side, with literals of any size and precision
        ("x = 2", &[1], &[0, 2, 3, 5]),
        ("x == 2", &[1], &[0, 2, 3, 5]),
        ("x != 2", &[0, 2, 3, 5], &[1]),
        ("x <> 2", &[0, 2, 3, 5], &[1]),
        ("x < 2", &[0, 3], &[1, 2, 5]),
        ("x <= 2", &[0, 1, 3], &[2, 5]),
        ("x > 2", &[2, 5], &[0, 1, 3]),
        ("x >= 2", &[1, 2, 5], &[0, 3]),
        ("2 > x", &[0, 3], &[1, 2, 5]),
        ("2 <= x", &[1, 2, 5], &[0, 3]),
        ("2 = x", &[1], &[0, 2, 3, 5]),
        ("-4 = x", &[3], &[0, 1, 2, 5]),
        ("x = - 4", &[3], &[0, 1, 2, 5]),
        ("x = +5", &[5], &[0, 1, 2, 3]),
        ("x < 2.5", &[0, 1, 3], &[2, 5]),
        ("x > 2.5", &[2, 5], &[0, 1, 3]),
        ("x >= 2.5", &[2, 5], &[0, 1, 3]),
        ("x = 2.5", &[], &[0, 1, 2, 3, 5]),
        ("x != 2.5", &[0, 1, 2, 3, 5], &[]),
        ("x = 2.0", &[1], &[0, 2, 3, 5]),
        ("x = 20e-1", &[1], &[0, 2, 3, 5]),
        ("x < -3.5", &[3], &[0, 1, 2, 5]),
        ("x <= -4.5", &[], &[0, 1, 2, 3, 5]),
        ("x >= .5", &[0, 1, 2, 5], &[3]),
        ("x < 1e400", &[0, 1, 2, 3, 5], &[]),
        ("x > -1e400", &[0, 1, 2, 3, 5], &[]),
        ("x > 0e999999999999999999999", &[0, 1, 2, 5], &[3]),
        ("x < 1e-999999999999999999999", &[3], &[0, 1, 2, 5]),
        ("x = 4294967298", &[], &[0, 1, 2, 3, 5]),
        ("tiny < 128", &[0, 1, 2, 3, 5], &[]),
        ("tiny <= -129", &[], &[0, 1, 2, 3, 5]),
        ("tiny <= 127", &[0, 1, 2, 3, 5], &[]),
        ("tiny >= -128", &[0, 1, 2, 3, 5], &[]),
        ("tiny < -128", &[], &[0, 1, 2, 3, 5]),
        ("big > 9223372036854775807", &[1, 2], &[0, 3, 5]),
        ("big = 18446744073709551615", &[2], &[0, 1, 3, 5]),
        ("big < 18446744073709551616", &[0, 1, 2, 3, 5], &[]),
        ("big > 999999999999999999999999999999999999999999", &[], &[0, 1, 2, 3, 5]),
        ("big >= -1", &[0, 1, 2, 3, 5], &[]),
        ("exact = 9007199254740993", &[1], &[0, 2, 3, 5]),
        ("exact = 9007199254740992", &[0], &[1, 2, 3, 5]),
        ("exact = 9007199254740992.0", &[0], &[1, 2, 3, 5]),
        ("exact > 9007199254740992.5", &[1, 5], &[0, 2, 3]),
        ("exact < -9007199254740992", &[2, 3], &[0, 1, 5]),
        ("exact <= -9223372036854775808", &[3], &[0, 1, 2, 5]),
        ("exact < 9223372036854775808", &[0, 1, 2, 3, 5], &[]),
        ("exact < -9223372036854775808", &[], &[0, 1, 2, 3, 5]),
        // floats
        ("f = 0", &[0, 1], &[2, 3, 5]),
        ("f = -0.0", &[0, 1], &[2, 3, 5]),
        ("f < 0", &[], &[0, 1, 2, 3, 5]),
        ("f >= 0", &[0, 1, 3, 5], &[2]),
        ("f <= 2.5", &[0, 1, 3], &[2, 5]),
        ("f > 2", &[3, 5], &[0, 1, 2]),
        ("f != 2.5", &[0, 1, 2, 5], &[3]),
        ("f in (0, 2.5)", &[0, 1, 3], &[2, 5]),
        ("f not in (-0.0, 7)", &[2, 3, 5], &[0, 1]),
        ("f = f", &[0, 1, 3, 5], &[2]),
        ("f != f", &[2], &[0, 1, 3, 5]),
        ("f32 = 0.1", &[0], &[1, 2, 3, 5]),
        ("f32 <= 0.1", &[0, 3], &[1, 2, 5]),
        ("f32 < 0.1", &[3], &[0, 1, 2, 5]),
        ("f32 in (0.2, 0.1)", &[0, 1], &[2, 3, 5]),
        ("f32 < 1e300", &[0, 1, 2, 3], &[5]),
        ("f32 = 1e300", &[], &[0, 1, 2, 3, 5]),
        ("f16 = 0.1", &[0], &[1, 2, 3, 5]),
        ("f16 < 1e6", &[0, 1, 2, 3, 5], &[]),
        ("f16 >= 65504", &[5], &[0, 1, 2, 3]),
        // decimals
        ("price = 1.5", &[1], &[0, 2, 3, 5]),
        ("price = 1.50000", &[1], &[0, 2, 3, 5]),
        ("price < 0.005", &[0, 2], &[1, 3, 5]),
        ("price <= -1.495", &[2], &[0, 1, 3, 5]),
        ("price > 999.98", &[3], &[0, 1, 2, 5]),
        ("price < 1e30", &[0, 1, 2, 3, 5], &[]),
        ("thousands = 2000", &[2], &[0, 1, 3, 5]),
        ("thousands > 1500", &[2, 5], &[0, 1, 3]),
        ("thousands = 2001", &[], &[0, 1, 2, 3, 5]),
        ("price = fine", &[0, 1, 5], &[2, 3]),
        ("price > fine", &[2, 3], &[0, 1, 5]),
        ("price < x", &[0, 1, 2, 5], &[3]),
        // texts, in every layout
        ("name = 'alpha'", &[0], &[1, 2, 3, 5]),
        ("large = 'alpha'", &[0], &[1, 2, 3, 5]),
        ("view = 'alpha'", &[0], &[1, 2, 3, 5]),
        ("name = 'it''s'", &[2], &[0, 1, 3, 5]),
        ("name = ''", &[3], &[0, 1, 2, 5]),
        ("name = 'übër'", &[5], &[0, 1, 2, 3]),
        ("name < 'a'", &[1, 3], &[0, 2, 5]),
        ("view <= 'alpha'", &[0, 1, 3], &[2, 5]),
        ("large > 'it'", &[2, 5], &[0, 1, 3]),
        ("'it' <= name", &[2, 5], &[0, 1, 3]),
        ("name = tail", &[1, 3], &[0, 2, 5]),
        ("view >= tail", &[0, 1, 2, 3, 5], &[]),
        ("large > name", &[], &[0, 1, 2, 3, 5]),
        ("section == 'games'", &[0, 3], &[1, 5]),
        ("section != 'games'", &[1, 5], &[0, 3]),
        ("section = 'unused'", &[], &[0, 1, 3, 5]),
        ("section > 'doc'", &[0, 3], &[1, 5]),
        ("section < name", &[5], &[0, 1, 3]),
        ("section = section", &[0, 1, 3, 5], &[]),
        ("empty = 'a'", &[], &[]),
        ("empty is null", &[0, 1, 2, 3, 4, 5], &[]),
        ("empty = name", &[], &[]),
        ("numbers > 10", &[2, 5], &[0, 3]),
        ("numbers = x", &[], &[0, 2, 3, 5]),
        // lists
        ("x in (1, 2, 99)", &[0, 1], &[2, 3, 5]),
        ("x IN [1, 2]", &[0, 1], &[2, 3, 5]),
        ("x in (1,)", &[0], &[1, 2, 3, 5]),
        ("x not in (1, 2)", &[2, 3, 5], &[0, 1]),
        ("not x in (1, 2)", &[2, 3, 5], &[0, 1]),
        ("x in (2.5, 2.0, 1e99)", &[1], &[0, 2, 3, 5]),
        ("x in (1, 1, 1, 2, 2, 2, 3, 3, 3, 7, 8, 9, 10, 11, 12, 13)", &[0, 1, 2], &[3, 5]),
        ("x in ()", &[], &[0, 1, 2, 3, 4, 5]),
        ("x not in []", &[0, 1, 2, 3, 4, 5], &[]),
        ("name in ('alpha', 'übër')", &[0, 5], &[1, 2, 3]),
        ("name in [\"alpha\", \"it's\"]", &[0, 2], &[1, 3, 5]),
        ("name in ('a','b','c','d','e','f','g','h','i','alpha')", &[0], &[1, 2, 3, 5]),
        ("section in ('doc')", &[1, 5], &[0, 3]),
        ("section not in ['doc', 'libs']", &[0, 3], &[1, 5]),
        ("x.isin([1, 5])", &[0, 5], &[1, 2, 3]),
        ("flag in (true)", &[0, 3, 5], &[1, 4]),
        ("flag in (true, false)", &[0, 1, 3, 4, 5], &[]),
        ("x = 1 or x = 3 or x = 1", &[0, 2], &[1, 3, 5]),
        ("x != 1 and x != 3", &[1, 3, 5], &[0, 2]),
        ("x = 1 or id = 4 or x = 2 or id = 5", &[0, 1, 4, 5], &[2, 3]),
        ("x = 1 and x = 2", &[], &[0, 1, 2, 3, 5]),
        ("x != 1 or x != 2", &[0, 1, 2, 3, 5], &[]),
        ("not (x = 1 or x = 2)", &[2, 3, 5], &[0, 1]),
        ("not (x = 1 and x = 2)", &[0, 1, 2, 3, 5], &[]),
        // ranges and chains
        ("x between 1 and 2", &[0, 1], &[2, 3, 5]),
        ("x BETWEEN 1.5 AND 1e3", &[1, 2, 5], &[0, 3]),
        ("x between 2 and 1", &[], &[0, 1, 2, 3, 5]),
        ("x not between 1 and 2", &[2, 3, 5], &[0, 1]),
        ("x between 1 and 2 and id = 1", &[1], &[0, 2, 3, 4, 5]),
        ("x.between(2, 3)", &[1, 2], &[0, 3, 5]),
        ("f not between 0 and 1", &[2, 3, 5], &[0, 1]),
        ("x between id and 3", &[0, 1, 2], &[3, 5]),
        ("section between 'd' and 'e'", &[1, 5], &[0, 3]),
        ("1 < x <= 3", &[1, 2], &[0, 3, 5]),
        ("0 < x < 3 < `installed size`", &[0, 1], &[2, 3, 5]),
        ("id < x < 3", &[0, 1], &[2, 3, 5]),
        ("3 > x > 1", &[1], &[0, 2, 3, 5]),
        // columns with columns
        ("x > id", &[0, 1, 2], &[3, 5]),
        ("x = id", &[5], &[0, 1, 2, 3]),
        ("x = f", &[], &[0, 1, 2, 3, 5]),
        ("x < f", &[3, 5], &[0, 1, 2]),
        ("f > x", &[3, 5], &[0, 1, 2]),
        ("x != f", &[0, 1, 2, 3, 5], &[]),
        ("f32 < f", &[3], &[0, 1, 2, 5]),
        ("big > exact", &[1, 2, 3], &[0, 5]),
        ("flag = flag2", &[0, 4], &[1, 3, 5]),
        // patterns and parts
        ("name like 'alpha'", &[0], &[1, 2, 3, 5]),
        ("name like 'a%'", &[0], &[1, 2, 3, 5]),
        ("view like '%a'", &[0, 1], &[2, 3, 5]),
        ("large like '%t%'", &[1, 2], &[0, 3, 5]),
        ("name like '%'", &[0, 1, 2, 3, 5], &[]),
        ("name like ''", &[3], &[0, 1, 2, 5]),
        ("name like '_b_r'", &[5], &[0, 1, 2, 3]),
        ("name like '____'", &[1, 2, 5], &[0, 3]),
        ("name like '%p%a'", &[0], &[1, 2, 3, 5]),
        ("name like '%_%'", &[0, 1, 2, 5], &[3]),
        ("name not like '%a'", &[2, 3, 5], &[0, 1]),
        ("name like 'b%'", &[], &[0, 1, 2, 3, 5]),
        ("name ilike 'b%'", &[1], &[0, 2, 3, 5]),
        ("name ilike 'ÜBËR'", &[5], &[0, 1, 2, 3]),
        ("name not ilike 'BETA'", &[0, 2, 3, 5], &[1]),
        ("name like 'it''''s' escape ''''", &[2], &[0, 1, 3, 5]),
        ("name like '!%' escape '!'", &[], &[0, 1, 2, 3, 5]),
        ("name like '\\%' escape ''", &[], &[0, 1, 2, 3, 5]),
        ("section like 'g%s'", &[0, 3], &[1, 5]),
        ("startswith(name, 'al')", &[0], &[1, 2, 3, 5]),
        ("starts_with(name, \"al\")", &[0], &[1, 2, 3, 5]),
        ("EndsWith(name, 'a')", &[0, 1], &[2, 3, 5]),
        ("contains(name, '''')", &[2], &[0, 1, 3, 5]),
        ("contains(name, '')", &[0, 1, 2, 3, 5], &[]),
        ("name.startswith('B')", &[1], &[0, 2, 3, 5]),
        ("name.str.startswith('B')", &[1], &[0, 2, 3, 5]),
        ("~name.str.startswith('B')", &[0, 2, 3, 5], &[1]),
        ("`name`.str.endswith('a') & x == 2", &[1], &[0, 2, 3, 5]),
        ("\"name\".contains('ph')", &[0], &[1, 2, 3, 5]),
        ("name.str.contains('.', regex=False)", &[], &[0, 1, 2, 3, 5]),
        ("name.str.contains('ph')", &[0], &[1, 2, 3, 5]),
        ("section.str.contains('o')", &[1, 5], &[0, 3]),
        // nulls and truth
        ("x is null", &[4], &[0, 1, 2, 3, 5]),
        ("x IS NOT NULL", &[0, 1, 2, 3, 5], &[4]),
        ("x is None", &[4], &[0, 1, 2, 3, 5]),
        ("id is null", &[], &[0, 1, 2, 3, 4, 5]),
        ("section is null", &[2, 4], &[0, 1, 3, 5]),
        ("numbers is not null", &[0, 2, 3, 5], &[1, 4]),
        ("blob is null", &[4], &[0, 1, 2, 3, 5]),
        ("nothing is null", &[0, 1, 2, 3, 4, 5], &[]),
        ("isnull(x)", &[4], &[0, 1, 2, 3, 5]),
        ("x.isna()", &[4], &[0, 1, 2, 3, 5]),
        ("notna(x)", &[0, 1, 2, 3, 5], &[4]),
        ("~section.notnull()", &[2, 4], &[0, 1, 3, 5]),
        ("flag", &[0, 3, 5], &[1, 4]),
        ("(flag)", &[0, 3, 5], &[1, 4]),
        ("flag = true", &[0, 3, 5], &[1, 4]),
        ("flag == False", &[1, 4], &[0, 3, 5]),
        ("flag != TRUE", &[1, 4], &[0, 3, 5]),
        ("true = flag", &[0, 3, 5], &[1, 4]),
        ("flag is true", &[0, 3, 5], &[1, 2, 4]),
        ("flag is not false", &[0, 2, 3, 5], &[1, 4]),
        ("flags is true", &[0, 4], &[1, 2, 3, 5]),
        ("flags is not true", &[1, 2, 3, 5], &[0, 4]),
        ("flags is null", &[2, 3], &[0, 1, 4, 5]),
        ("flags", &[0, 4], &[1, 5]),
        ("flags = flag", &[0, 1], &[4, 5]),
        ("true", &[0, 1, 2, 3, 4, 5], &[]),
        ("FALSE or x = 1", &[0], &[1, 2, 3, 5]),
        // combinations
        ("flag and x > 2", &[5], &[0, 1, 3, 4]),
        ("x > 2 or flag", &[0, 2, 3, 5], &[1]),
        ("x = 1 or x = 2 and id = 0", &[0], &[1, 2, 3, 5]),
        ("(x = 1 or x = 2) and id = 1", &[1], &[0, 2, 3, 4, 5]),
        ("x > 1 & id > 1 | id == 0", &[0, 2, 5], &[1, 3]),
        ("(x > 1) & ~(id > 1)", &[1], &[0, 2, 3, 4, 5]),
        ("~flag", &[1, 4], &[0, 3, 5]),
        ("~~flag", &[0, 3, 5], &[1, 4]),
        ("~(flag)", &[1, 4], &[0, 3, 5]),
        ("not flag and x = 2", &[1], &[0, 2, 3, 5]),
        ("not not NOT x = 1", &[1, 2, 3, 5], &[0]),
        ("((((x)))) = ((1))", &[0], &[1, 2, 3, 5]),
        ("x = 1\n\tor\r\nx = 2", &[0, 1], &[2, 3, 5]),
        // names
        ("`installed size` > 30", &[3, 4, 5], &[0, 1, 2]),
        ("\"installed size\" > 30", &[3, 4, 5], &[0, 1, 2]),
        ("größe = 2", &[2, 3], &[0, 1, 4, 5]),
        ("हिन्दी = 1", &[0], &[1, 2, 3, 4, 5]),
        ("a.b = 8", &[3, 4, 5], &[0, 1, 2]),
        ("`a.b` = 8", &[3, 4, 5], &[0, 1, 2]),
        ("\"a.b\".isin([8])", &[3, 4, 5], &[0, 1, 2]),
        ("select = 1", &[5], &[0, 1, 2, 3, 4]),
        ("`say \"hi\"` = 1", &[1], &[0, 2, 3, 4, 5]),
        ("\"say \"\"hi\"\"\" = 1", &[1], &[0, 2, 3, 4, 5]),
        ("name == \"alpha\"", &[0], &[1, 2, 3, 5]),
        ("\"name\" == 'alpha'", &[0], &[1, 2, 3, 5]),
        ("\"name\" == \"alpha\"", &[0], &[1, 2, 3, 5]),
        ("\"alpha\" == \"name\"", &[0], &[1, 2, 3, 5]),
        ("\"x\" > \"id\"", &[0, 1, 2], &[3, 5]),
        ("x > \"id\"", &[0, 1, 2], &[3, 5]),
        ("day >= \"2024-05-01\"", &[0, 1], &[2, 3, 5]),
        // dates and times
        ("day = '2024-05-01'", &[0], &[1, 2, 3, 5]),
        ("day > '2024-04-30'", &[0, 1], &[2, 3, 5]),
        ("day < '2024-05-01 00:00:00.1'", &[0, 2, 3, 5], &[1]),
        ("day < '1970-01-01'", &[3], &[0, 1, 2, 5]),
        ("day = '1969-12-31'", &[3], &[0, 1, 2, 5]),
        ("day = '2024-05-01 12:00'", &[], &[0, 1, 2, 3, 5]),
        ("day64 >= '2024-05-01T12:00'", &[2, 3], &[0, 1, 5]),
        ("seen = '2024-05-01 01:00'", &[1], &[0, 2, 3, 5]),
        ("seen > '2024-05-01T00:59:59.999999999'", &[1, 2, 3], &[0, 5]),
        ("seen between '2024-05-01' and '2024-05-02'", &[0, 1, 2, 3], &[5]),
        ("seen in ('2024-05-01', '2024-05-02')", &[0, 3], &[1, 2, 5]),
        ("seconds < '2024-05-01 00:00:00.000000001'", &[0, 5], &[1, 2, 3]),
        ("seconds = day", &[0], &[1, 2, 3, 5]),
        ("seen = seconds", &[0, 1, 2, 3, 5], &[]),
        ("utc = '2024-05-01T01:00:00Z'", &[1], &[0, 2, 3, 5]),
        ("utc = '2024-05-01T03:00:00+02:00'", &[1], &[0, 2, 3, 5]),
        ("utc = '2024-04-30T23:30-01:30'", &[1], &[0, 2, 3, 5]),
        ("utc = '2024-05-01 01:00'", &[1], &[0, 2, 3, 5]),
        ("east = '2024-05-01 03:00'", &[1], &[0, 2, 3, 5]),
        ("berlin = '2024-05-01 03:00+0200'", &[1], &[0, 2, 3, 5]),
        ("berlin = utc", &[0, 1, 2, 3, 5], &[]),
        ("clock = '12:30'", &[2], &[0, 1, 3, 5]),
        ("clock <= '12:30:15.5'", &[0, 1, 2, 5], &[3]),
        ("clock > '00:00:00.000000000'", &[1, 2, 3, 5], &[0]),
        ("clock32 > '12:30:14.9'", &[3, 5], &[0, 1, 2]),
        ("clock32 = clock", &[0, 2], &[1, 3, 5]),
    ];
    let batch = table();
    let mut wrong = vec![];
    for &(text, rows, others) in cases {
        let forms = [
            (text.to_owned(), rows),
            (format!("({text})"), rows),
            (format!("~~({text})"), rows),
            (format!("not ({text})"), others),
        ];
        for (text, rows) in forms {
            let passed = passes(&batch, &text);
            if passed != rows {
                wrong.push(format!("{text}: {passed:?} rather than {rows:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
