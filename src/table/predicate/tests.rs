//! Texts with the rows that they let pass; drawn predicates against an evaluator of single rows;
//! what is refused, and in which words; texts made to break a parser.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringDictionaryBuilder};
use arrow_array::types::{Int8Type, Int16Type};
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Date64Array, Decimal128Array, DictionaryArray,
    FixedSizeBinaryArray, Float16Array, Float32Array, Float64Array, Int8Array, Int32Array,
    Int64Array, LargeStringArray, NullArray, RecordBatch, StringArray, StringViewArray,
    Time32SecondArray, Time64NanosecondArray, TimestampMicrosecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt64Array,
};
use arrow_schema::{Field, Schema};
use half::f16;

use super::literal::{Floor, Moment, Number, clock};
use super::{Predicate, WORTH_A_THREAD, compare_scaled, compare_with_float};
use crate::random::Random;

const TWO_53: i64 = 1 << 53;
const HOUR: i64 = 3600;
const UUID: u128 = 0x123e_4567_e89b_12d3_a456_4266_1417_4000;
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
        let mut all: Vec<Option<i64>> = hours.map(|hour| Some(start + hour * HOUR)).to_vec();
        all.insert(4, None);
        all
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
        (
            "uuid",
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    [Some(0), Some(1), Some(1 << 127), Some(u128::MAX), None, Some(UUID)]
                        .map(|digits| digits.map(u128::to_be_bytes))
                        .into_iter(),
                    16,
                )
                .unwrap(),
            ),
        ),
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
    let bits = predicate.evaluate(batch, 1).unwrap();
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
        // UUIDs
        ("uuid = '123e4567-e89b-12d3-a456-426614174000'", &[5], &[0, 1, 2, 3]),
        ("uuid = '123E4567E89B12D3A456426614174000'", &[5], &[0, 1, 2, 3]),
        ("uuid = \"123e4567-e89b-12d3-a456-426614174000\"", &[5], &[0, 1, 2, 3]),
        ("uuid != '00000000000000000000000000000001'", &[0, 2, 3, 5], &[1]),
        ("uuid < '00000000-0000-0000-0000-000000000000'", &[], &[0, 1, 2, 3, 5]),
        ("uuid <= '00000000-0000-0000-0000-000000000000'", &[0], &[1, 2, 3, 5]),
        ("uuid >= '00000000-0000-0000-0000-000000000000'", &[0, 1, 2, 3, 5], &[]),
        ("uuid < '80000000-0000-0000-0000-000000000000'", &[0, 1, 5], &[2, 3]),
        ("uuid > '80000000-0000-0000-0000-000000000000'", &[3], &[0, 1, 2, 5]),
        ("uuid <= 'ffffffff-ffff-ffff-ffff-ffffffffffff'", &[0, 1, 2, 3, 5], &[]),
        (
            "uuid in ('123e4567-e89b-12d3-a456-426614174000', 'ffffffffffffffffffffffffffffffff', \
             '00000000000000000000000000000002', '00000000000000000000000000000000')",
            &[0, 3, 5],
            &[1, 2],
        ),
        (
            "uuid between '00000000000000000000000000000001' and '123e4567e89b12d3a456426614174000'",
            &[1, 5],
            &[0, 2, 3],
        ),
        ("uuid = uuid", &[0, 1, 2, 3, 5], &[]),
        ("uuid is null", &[4], &[0, 1, 2, 3, 5]),
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
        ("name ilike 'BET\u{1d00}'", &[], &[0, 1, 2, 3, 5]),
        ("name ilike 'it''\u{17f}'", &[2], &[0, 1, 3, 5]),
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
        ("day < '1969-12-31 12:00'", &[3], &[0, 1, 2, 5]),
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

#[test]
fn what_is_no_predicate_is_refused_with_the_reason_and_the_place() {
    let cases = [
        // not a sentence
        ("", "expected a predicate, got an empty text"),
        ("  \n ", "expected a predicate, got an empty text"),
        ("x =", "at its end: expected a column or a value, got the end"),
        ("x = 1 and\n = 2", "at line 2, character 2: expected a column or a value, got ="),
        ("x === 1", "at character 5: expected a column or a value, got ="),
        ("x = 1 y = 2", "at character 7: expected and, or, or the end, got y"),
        ("x = 1 and and x = 2", "at character 11: expected a column or a value, got and"),
        ("not", "expected a column or a value, got the end"),
        ("(x = 1", "at its end: expected and, or, or ), got the end"),
        ("x = 1)", "at character 6: a parenthesis is closed that was not opened"),
        ("x not 5", "at character 3: expected a comparison, got not"),
        ("x <=> 1", "expected a comparison, got <=>"),
        ("x ~ 'a'", "expected a comparison, got ~"),
        ("name rlike 'a'", "expected a comparison, got rlike"),
        ("x in 5", "expected values in parentheses or brackets after in, got 5"),
        ("x in (1 2)", "expected a comma or ), got 2"),
        ("x in [1, 2)", "expected a comma or ], got )"),
        ("x in (1, 2", "expected a comma or ), got the end"),
        ("x in (,)", "expected a column or a value, got ,"),
        ("x between 1, 2", "expected the and of between, got ,"),
        ("x between 1 and", "expected a column or a value, got the end"),
        ("x == [1, 2]", "a list of values comes after in"),
        ("x is 5", "expected null after is, or true or false after a column of booleans, got 5"),
        (
            "x is true",
            "expected null after is, or true or false after a column of booleans, got true",
        ),
        ("x in (1) in (2)", "expected and, or, or the end, got in"),
        ("x is null is null", "expected and, or, or the end, got is"),
        (
            "name = 'it's'",
            "at character 13: unterminated string literal; a quote inside of a text is doubled",
        ),
        ("name = \"a", "expected close delimiter '\"' before eof"),
        ("`name = 1", "expected close delimiter '`' before eof"),
        ("name.= 'a'", "expected a name after the dot, got ="),
        ("name = \u{2018}a\u{2019}", "expected a column or a value, got \u{2018}"),
        ("x = 0x10", "expected a column or a value, got X'10'"),
        ("x = 1_000", "expected and, or, or the end, got _000"),
        ("x = 10L", "expected a number of digits alone, got 10L"),
        ("x = 1.2.3", "expected and, or, or the end, got .3"),
        ("name = 'a' 'b'", "expected and, or, or the end, got 'b'"),
        ("-x = 1", "expected a number after the sign, got x"),
        ("😀 = 1", "expected a column or a value, got 😀"),
        // names
        (
            "sectoin = 'games'",
            "at character 1: there is no column sectoin; did you mean section? the columns are: id, x, tiny,",
        ),
        ("Name = 'a'", "did you mean name?"),
        ("x = 1 and zzz = 1", "at character 11: there is no column zzz; the columns are: id, x"),
        ("zzz = 1", "installed size, and 11 more"),
        ("`Installed size` = 1", "did you mean installed size?"),
        ("\"zzz\" = 1", "there is no column zzz; the columns are"),
        ("x = \"zzz\"", "at character 5: there is no column zzz; the columns are"),
        ("\"zzz\" = 'a'", "at character 1: there is no column zzz"),
        ("\"zzz\" = \"qqq\"", "there is no column zzz"),
        ("\"zzz\" in ('a')", "there is no column zzz"),
        ("\"zzz\" is null", "there is no column zzz"),
        ("startswith(\"zzz\", 'a')", "there is no column zzz"),
        ("section = games", "there is no column games; a text stands in single quotes;"),
        ("zzz.str.startswith('a')", "at character 1: there is no column zzz; the columns are"),
        ("x.y = 1", "there is no column x.y"),
        ("twin = 1", "two columns are named twin"),
        // a word in double quotes that could be a column and a text
        (
            "section = \"name\"",
            "\"name\" is a column in SQL and a text in pandas, and here it could be both; write `name` for the column, or 'name' for the text",
        ),
        ("\"name\" = \"section\"", "could be both"),
        ("name in ('a', \"tail\")", "at character 15: \"tail\" is a column in SQL"),
        ("name like \"tail\"", "could be both"),
        ("name.startswith(\"tail\")", "could be both"),
        ("day > \"seen\"", "could be both"),
        // types
        (
            "x",
            "at character 1: expected a condition, got the column x (Int32) alone; compare it with something",
        ),
        ("flag and name", "expected a condition, got the column name (Utf8) alone"),
        ("x = 'a'", "at character 5: the column x (Int32) cannot be compared with the text 'a'"),
        (
            "uuid = 'a-b'",
            "the column uuid (FixedSizeBinary(16)) is compared with 32 hexadecimal digits, as in \
             '123e4567-e89b-12d3-a456-426614174000', got the text 'a-b'",
        ),
        ("uuid = '123e4567-e89b-12d3-a456-42661417400é'", "is compared with 32 hexadecimal digits"),
        ("uuid = '123e4567-e89b-12d3-a4564-26614174000'", "got the text"),
        ("uuid = 5", "cannot be compared with the number 5"),
        ("startswith(uuid, '12')", "holds no texts"),
        ("uuid = blob", "cannot be compared by = with the column blob"),
        ("x = true", "the column x (Int32) cannot be compared with true"),
        ("name = -5", "the column name (Utf8) cannot be compared with the number -5"),
        (
            "section in ('a', 5)",
            "the column section (Dictionary(Int8, Utf8)) cannot be compared with the number 5",
        ),
        ("flag = 1", "the column flag (Boolean) cannot be compared with the number 1"),
        ("flag < true", "the column flag (Boolean) is compared by = and != alone, got <"),
        (
            "flag between false and true",
            "the column flag (Boolean) is compared by = and != alone, got >=",
        ),
        (
            "flag < flag2",
            "the column flag (Boolean) cannot be compared by < with the column flag2 (Boolean)",
        ),
        ("day = 5", "the column day (Date32) cannot be compared with the number 5"),
        (
            "day = '2024-13-01'",
            "the column day (Date32) is compared with dates like '2024-05-01' or '2024-05-01 12:30:15.5', got the text '2024-13-01'",
        ),
        (
            "seen = '2024-05-01T00:00Z'",
            "the column seen (Timestamp(µs)) has no time zone, got '2024-05-01T00:00Z' with one",
        ),
        ("berlin = '2024-05-01'", "has a time zone whose offset changes; add one to '2024-05-01'"),
        ("seen = utc", "cannot be compared by = with the column utc"),
        (
            "clock = 'noon'",
            "the column clock (Time64(ns)) is compared with times like '12:30' or '12:30:15.5', got the text 'noon'",
        ),
        ("x = name", "the column x (Int32) cannot be compared by = with the column name (Utf8)"),
        ("price = f", "cannot be compared by = with the column f (Float64)"),
        ("thousands = x", "cannot be compared by ="),
        (
            "blob = 'a'",
            "the column blob (Binary) cannot be compared; it can only be asked for nulls (is null)",
        ),
        ("nothing = 1", "it can only be asked for nulls"),
        ("x like 'a'", "the column x (Int32) holds no texts"),
        ("startswith(x, 'a')", "the column x (Int32) holds no texts"),
        ("startswith('a', 'b')", "expected a column, got the text 'a'"),
        ("startswith(name, 5)", "cannot be compared with the number 5"),
        (
            "x = null",
            "at character 5: a comparison with null is never true; write is null, or is not null",
        ),
        ("null <> x", "a comparison with null is never true"),
        ("x in (1, null)", "a comparison with null is never true"),
        ("x between None and 2", "a comparison with null is never true"),
        ("null is null", "expected a column, got null"),
        ("1 = 1", "expected a column to compare, got the number 1 and the number 1"),
        ("x = 1 or '' = ''", "expected a column to compare, got the text '' and the text ''"),
        ("5 in (1, 2)", "expected a column, got the number 5"),
        ("x in (id)", "expected a value, got a column"),
        ("name like tail", "expected a value, got a column"),
        ("null", "expected a condition, got null alone"),
        ("1", "expected a condition, got the number 1 alone"),
        // readings that differ
        ("~x == 1", "expected a condition, got the column x (Int32) alone"),
        ("~flag == flag2", "~ binds to what follows it alone"),
        ("~flag in (true)", "~ binds to what follows it alone"),
        ("(x = 1) = true", "a condition is compared"),
        ("(x = 1) is null", "a condition is compared"),
        ("x = ~flag", "at character 5: expected a column or a value, got ~"),
        (
            "flag = flag2 = true",
            "a chain of comparisons with true, false or a column of booleans means one thing",
        ),
        ("1 < x < 3 in (1)", "expected and, or, or the end, got in"),
        ("name like 'a\\_'", "a backslash in a pattern escapes in some dialects and not in others"),
        ("name like 'a!' escape '!'", "the escape of a pattern must stand before %, _ or itself"),
        ("name like 'a!b' escape '!'", "the escape of a pattern must stand before %, _ or itself"),
        ("name like 'a' escape 'ab'", "expected a text of one character after escape, got 'ab'"),
        ("name.str.contains('a.b')", "in pandas this is a regular expression"),
        (
            "name.str.contains('a', case=False)",
            "expected the ) of contains, which takes nothing more, got ,",
        ),
        ("x && id", "write and for &&"),
        ("flag || flag2", "write or for ||"),
        ("!flag", "write not for !"),
        // what the language has not
        ("x + 1 = 2", "at character 3: predicates do not calculate"),
        ("x = 1 - 1", "predicates do not calculate"),
        ("x -1", "predicates do not calculate"),
        ("x % 2 = 0", "predicates do not calculate"),
        ("select * from t", "at character 8: predicates do not calculate"),
        ("x = (selekt 1)", "did you mean select?"),
        (
            "case when x = 1 then true end",
            "there is no column case; a predicate is a condition on columns and has no other parts of SQL",
        ),
        (
            "exists(select 1)",
            "there is no function exists; there are startswith, endswith, contains, isnull and notnull",
        ),
        ("abs(x) = 1", "there is no function abs"),
        ("name.str.lower() = 'a'", "there is no function lower"),
        ("isin(x, [1])", "there is no function isin"),
        ("x.isnull(1)", "expected the ) of isnull, which takes nothing more, got 1"),
        ("cast(x as text) = '1'", "there is no function cast"),
        ("x::text = '1'", "casts have no place in a predicate"),
        ("x[0] = 1", "a predicate looks at whole values, not into them"),
        ("x = 1; drop table users", "at character 6: expected and, or, or the end, got ;"),
        ("x = 1 -- or", "at character 7: comments have no place in a predicate"),
        ("x = 1 /* or */ and id = 2", "comments have no place in a predicate"),
        ("x = 1 /* or", "unexpected eof while in a multi-line comment"),
        ("x = 1 union select 1", "expected and, or, or the end, got union"),
        ("x = @limit", "@ names a value of Python"),
        ("x = ?", "expected a column or a value, got ?"),
        ("x = $1", "expected a column or a value, got $1"),
        ("name = X'61'", "expected a column or a value, got X'61'"),
        ("day = date '2024-05-01'", "there is no column date; dates are written as texts alone"),
        ("x = nan", "there is no column nan"),
    ];
    let mut columns: Vec<(&str, ArrayRef)> = vec![];
    let batch = table();
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        columns.push((field.name(), array.clone()));
    }
    columns.extend([("twin", batch.column(0).clone()), ("twin", batch.column(1).clone())]);
    let batch = named(columns.iter().map(|(name, array)| (*name, array.clone())).collect());
    let mut wrong = vec![];
    for (text, reason) in cases {
        let message = refusal(&batch, text);
        if !message.contains(reason) {
            wrong.push(format!("{text}\n    {message}\n    rather than {reason}"));
        }
        assert!(message.len() < 700 && !message.contains(char::is_control), "{message:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_examples_of_the_description_are_predicates() {
    let text = |values: [&'static str; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let number = |values: [i32; 2]| Arc::new(Int32Array::from(values.to_vec())) as ArrayRef;
    let batch = named(vec![
        ("section", text(["games", "doc"])),
        ("installed_size_kib", number([100, 1000])),
        ("name", text(["chess", "libchess"])),
        ("depends", number([5, 6])),
        ("maintainer", text(["a", "b"])),
        ("released", Arc::new(Date32Array::from(vec![DAY, DAY + 365]))),
    ]);
    let (_, rest) = include_str!("../predicate.rs").split_once("//! ```text\n").unwrap();
    let (examples, _) = rest.split_once("//! ```").unwrap();
    assert_eq!(examples.lines().count(), 4);
    for example in examples.lines() {
        assert_eq!(passes(&batch, example.trim_start_matches("//! ")), [0], "{example}");
    }
}

#[test]
fn a_predicate_is_refused_for_other_columns_than_its_own() {
    let one = named(vec![("x", Arc::new(Int32Array::from(vec![1])))]);
    let two = named(vec![("x", Arc::new(Int64Array::from(vec![1])))]);
    let three = named(vec![("y", Arc::new(Int32Array::from(vec![1])))]);
    let predicate = Predicate::parse("x = 1", one.schema_ref()).unwrap();
    assert_eq!(predicate.evaluate(&one, 1).unwrap().count_set_bits(), 1);
    for other in [two, three, table()] {
        let error = predicate.evaluate(&other, 1).unwrap_err().to_string();
        assert!(error.contains("other columns"), "{error}");
    }
    assert!(
        refusal(&RecordBatch::new_empty(Arc::new(Schema::empty())), "x = 1")
            .contains("the columns are: none")
    );
}

/// On a thread whose stack is a quarter of what Rust gives, and with a limit that a quadratic parser would
/// miss by far: a debug build on a busy machine takes a tenth of it.
#[test]
fn texts_made_to_break_a_parser_are_read_or_refused() {
    let started = std::time::Instant::now();
    let body = || {
        let batch = table();
        let join = |terms: &dyn Fn(usize) -> String, count, word: &str| {
            (0..count).map(terms).collect::<Vec<_>>().join(word)
        };
        let differ = |i: usize| format!("x > {i}");
        assert_eq!(passes(&batch, &join(&differ, 10_000, " or ")), [0, 1, 2, 5]);
        assert_eq!(passes(&batch, &join(&differ, 10_000, " and ")), [0_usize; 0]);
        assert_eq!(passes(&batch, &join(&|i| format!("x = {}", i + 2), 10_000, " or ")), [1, 2, 5]);
        assert_eq!(
            passes(&batch, &join(&|i| format!("id != {}", i + 3), 10_000, " & ")),
            [0, 1, 2]
        );
        assert_eq!(
            passes(&batch, &join(&|i| format!("name = 'a{i}'"), 10_000, " | ")),
            [0_usize; 0]
        );
        let list = join(&|i| (i * 2).to_string(), 10_000, ", ");
        assert_eq!(passes(&batch, &format!("x in ({list})")), [1]);
        assert_eq!(passes(&batch, &format!("f in [{list}]")), [0, 1]);
        assert_eq!(
            passes(&batch, &format!("name not in ('{}')", list.replace(", ", "', '"))),
            [0, 1, 2, 3, 5]
        );
        assert_eq!(passes(&batch, &format!("x {}", "<= x ".repeat(50_000))), [0, 1, 2, 3, 5]);
        assert_eq!(passes(&batch, &format!("{} x = 1", "not ".repeat(100_000))), [0]);
        assert_eq!(passes(&batch, &format!("{}flag", "~".repeat(100_001))), [1, 4]);
        assert_eq!(passes(&batch, &format!("{}x = 1{}", "(".repeat(100), ")".repeat(100))), [0]);
        assert_eq!(passes(&batch, &format!("x = {}1", "0".repeat(100_000))), [0]);
        assert_eq!(passes(&batch, &format!("x > 1.{}1", "0".repeat(100_000))), [1, 2, 5]);
        assert_eq!(passes(&batch, &format!("name ilike '{}'", "%_".repeat(100_000))), [0_usize; 0]);
        assert_eq!(
            passes(&batch, &format!("name like '{}'", "%".repeat(100_000))),
            [0, 1, 2, 3, 5]
        );
        assert_eq!(passes(&batch, "name != '\0' and name != '😀'"), [0, 1, 2, 3, 5]);
        assert_eq!(passes(&batch, "\u{a0}x\u{2003}=\u{3000}1\u{a0}"), [0]);

        for text in [
            "(".repeat(100_000),
            "x = (".repeat(50_000),
            format!("{}x = 1{}", "(".repeat(101), ")".repeat(101)),
            format!("{}x = 1{}", "not (".repeat(100_000), ")".repeat(100_000)),
        ] {
            assert!(refusal(&batch, &text).contains("parentheses are deeper than 100"));
        }
        for text in [
            format!("{} or", join(&differ, 100_000, " or ")),
            format!("x = {}1", "- ".repeat(100_000)),
            format!("x = 1{}", " is null".repeat(100_000)),
            format!("x between {}", "1 and 2 between ".repeat(50_000)),
            format!("x = 1{}", " + 1".repeat(100_000)),
            format!("x{} = 1", ".y".repeat(100_000)),
            format!("x = {}", "[".repeat(100_000)),
            format!("{}x = 1", "case when ".repeat(50_000)),
            format!("x = {}'", "'".repeat(100_000)),
            "\0".repeat(100_000),
            "`".repeat(99_999),
            "é".repeat(100_000),
            "x = 1".to_owned() + &";".repeat(100_000),
            "\u{202e}x = 1".to_owned(),
        ] {
            refusal(&batch, &text);
        }
        let text = format!("x in ({})", "1, ".repeat(400_000));
        assert!(refusal(&batch, &text).contains("at most 1048576 bytes, got 1200007"));
    };
    let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(body).unwrap();
    thread.join().unwrap();
    assert!(started.elapsed().as_secs() < 60);
}

/// Every text of few tokens: nothing panics, and what is read can be evaluated.
#[test]
fn no_sequence_of_tokens_makes_the_parser_panic() {
    let batch = table();
    let tokens = [
        "x",
        "name",
        "flag",
        "\"name\"",
        "`x`",
        "zzz",
        "1",
        "-",
        "2.5e3",
        "'a'",
        "true",
        "null",
        "(",
        ")",
        "[",
        "]",
        ",",
        ".",
        "=",
        "!=",
        "<",
        ">=",
        "and",
        "or",
        "not",
        "&",
        "|",
        "~",
        "in",
        "between",
        "like",
        "ilike",
        "escape",
        "is",
        "isnull",
        "str",
        "contains",
        "isin",
        "regex",
        ";",
        "@",
        "!",
        "::",
        "+",
        "--",
        "/*",
        "'",
        "\"",
        "\\",
        "day",
        "'2024-05-01'",
    ];
    let mut random = Random(5);
    let mut read = 0;
    for _ in 0..60_000 {
        let length = 1 + random.next() % 9;
        let text: String = (0..length)
            .map(|_| tokens[random.next() as usize % tokens.len()].to_owned() + " ")
            .collect();
        if let Ok(predicate) = Predicate::parse(&text, batch.schema_ref()) {
            assert_eq!(predicate.evaluate(&batch, 1).unwrap().len(), 6);
            read += 1;
        }
    }
    assert!(read > 100, "only {read} were predicates");
}

#[test]
fn numbers_are_read_exactly() {
    let floor = |text: &str, scale| {
        let (text, negative) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
        let Floor { whole, exact } = Number::parse(text, negative).unwrap().floor(scale);
        (whole, exact)
    };
    assert_eq!(floor("0", 0), (0, true));
    assert_eq!(floor("-0.000", 3), (0, true));
    assert_eq!(floor("000123.4500", 2), (12_345, true));
    assert_eq!(floor("123.45", 1), (1_234, false));
    assert_eq!(floor("-123.45", 1), (-1_235, false));
    assert_eq!(floor("-123.45", -2), (-2, false));
    assert_eq!(floor("1200", -2), (12, true));
    assert_eq!(floor(".5", 0), (0, false));
    assert_eq!(floor("5.", 0), (5, true));
    assert_eq!(floor("-1e-30", 0), (-1, false));
    assert_eq!(floor("1.5E+3", 0), (1_500, true));
    let largest = i128::MAX.to_string();
    assert_eq!(floor(&largest, 0), (i128::MAX, true));
    assert_eq!(floor("170141183460469231731687303715884105728", 0), (i128::MAX, false));
    assert_eq!(floor("-170141183460469231731687303715884105729", 0), (i128::MIN, false));
    assert_eq!(floor("9e99999999999999999999", 0), (i128::MAX, false));
    assert_eq!(floor("-9e99999999999999999999", 38), (i128::MIN, false));
    assert_eq!(floor("9e-99999999999999999999", 38), (0, false));
    assert_eq!(floor(&format!("1{}", "0".repeat(38)), 0), (10_i128.pow(38), true));
    for text in ["", ".", "e5", "1e", "inf", "nan", "1_0", "0x1", "+1", "1e5.5"] {
        assert_eq!(Number::parse(text, false), None, "{text}");
    }
}

#[test]
fn moments_are_read_exactly_or_not_at_all() {
    let hour = 3_600_000_000_000;
    let read = |text| Moment::parse(text).map(|moment| (moment.nanoseconds, moment.offset));
    assert_eq!(read("1970-01-01"), Some((0, None)));
    assert_eq!(read("1969-12-31T23:00"), Some((-hour, None)));
    assert_eq!(read("2000-02-29 00:00:00.000000001"), Some((951_782_400_000_000_001, None)));
    assert_eq!(read("9999-12-31"), Some((253_402_214_400_000_000_000, None)));
    assert_eq!(read("0000-01-01T00:00:00Z"), Some((-62_167_219_200_000_000_000, Some(0))));
    assert_eq!(read("1970-01-01T05:00+05:30"), Some((5 * hour, Some(5 * hour + hour / 2))));
    assert_eq!(read("1970-01-01T05:00:00.5-11"), Some((5 * hour + 500_000_000, Some(-11 * hour))));
    for text in [
        "",
        "2024",
        "2024-05",
        "2024-5-1",
        "24-05-01",
        "2024-02-30",
        "2023-02-29",
        "2024/05/01",
        " 2024-05-01",
        "2024-05-01 ",
        "2024-05-01T",
        "2024-05-01T12",
        "2024-05-01T12:3",
        "2024-05-01T24:00",
        "2024-05-01T12:60",
        "2024-05-01T12:30:60",
        "2024-05-01T12:30:5",
        "2024-05-01T12:30:15.",
        "2024-05-01T12:30:15.1234567890",
        "2024-05-01T12:30:15.1e3",
        "2024-05-01Z",
        "2024-05-01T12:30z",
        "2024-05-01T12:30+5",
        "2024-05-01T12:30+24:00",
        "2024-05-01T12:30 UTC",
        "2024-05-01T12:30+02:00Z",
        "+024-05-01",
        "２０２４-05-01",
        "2024-05-0é",
        "now",
        "infinity",
    ] {
        assert_eq!(Moment::parse(text), None, "{text}");
    }
    assert_eq!(clock("23:59:59.999999999"), Some(24 * hour - 1));
    assert_eq!(clock("12:30+02:00"), None);
}

#[test]
fn columns_of_different_numbers_compare_without_rounding() {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let two_53 = i128::from(TWO_53);
    assert_eq!(compare_with_float(two_53 + 1, 2f64.powi(53)), Some(Greater));
    assert_eq!(compare_with_float(two_53, 2f64.powi(53)), Some(Equal));
    assert_eq!(compare_with_float(i128::from(u64::MAX), 2f64.powi(64)), Some(Less));
    assert_eq!(compare_with_float(-2, -2.5), Some(Greater));
    assert_eq!(compare_with_float(-3, -2.5), Some(Less));
    assert_eq!(compare_with_float(0, -0.0), Some(Equal));
    assert_eq!(compare_with_float(7, f64::INFINITY), Some(Less));
    assert_eq!(compare_with_float(7, f64::NEG_INFINITY), Some(Greater));
    assert_eq!(compare_with_float(7, f64::NAN), None);
    let largest = 10_i128.pow(38) - 1;
    assert_eq!(compare_scaled((150, 2), (15, 1)), Equal);
    assert_eq!(compare_scaled((-151, 2), (-15, 1)), Less);
    assert_eq!(compare_scaled((largest, 0), (largest, 38)), Greater);
    assert_eq!(compare_scaled((-largest, 0), (largest, 38)), Less);
    assert_eq!(compare_scaled((1, 0), (largest, 38)), Greater);
}

/// A predicate as a tree that the test draws, writes in many spellings, and evaluates by itself, row by row.
enum Tree {
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Not(Box<Tree>),
    /// A column, the word or sign, and values.
    Leaf(usize, &'static str, Vec<Value>),
    /// Two columns.
    Pair(usize, &'static str, usize),
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Null,
    Nan,
    /// In thousandths, so that all that is drawn is exact in every type.
    Number(i64),
    Text(String),
    Bool(bool),
}

/// The drawn table, and the same values as the evaluator sees them.
struct Drawn {
    batch: RecordBatch,
    columns: Vec<(&'static str, Vec<Value>)>,
}

const TEXTS: [&str; 9] = ["", "a", "ab", "b", "ba", "A", "aab", "ß", "日本"];

fn draw(random: &mut Random, rows: usize) -> Drawn {
    let mut column =
        |value: &mut dyn FnMut(&mut Random) -> Value| -> Vec<Value> {
            let nulls = random.next().is_multiple_of(2);
            (0..rows)
                .map(|_| {
                    if nulls && random.next().is_multiple_of(4) {
                        Value::Null
                    } else {
                        value(random)
                    }
                })
                .collect()
        };
    let mut whole = |random: &mut Random| Value::Number((random.next() % 9) as i64 * 1000 - 4000);
    let (small, large) = (column(&mut whole), column(&mut whole));
    let eighths = column(&mut |random| match random.next() % 8 {
        0 => Value::Nan,
        other => Value::Number(other as i64 * 500 - 2000),
    });
    let price = column(&mut |random| Value::Number((random.next() % 9) as i64 * 250 - 1000));
    let mut word =
        |random: &mut Random| Value::Text(TEXTS[random.next() as usize % TEXTS.len()].into());
    let (plain, coded, view) = (column(&mut word), column(&mut word), column(&mut word));
    let flag = column(&mut |random| Value::Bool(random.next().is_multiple_of(2)));

    let number = |value: &Value, unit: i64| match value {
        Value::Number(x) => Some(x / unit),
        _ => None,
    };
    let text = |value: &Value| match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    let float = |value: &Value| match value {
        Value::Nan => Some(f32::NAN),
        Value::Number(x) => Some(*x as f32 / 1000.0),
        _ => None,
    };
    let bool = |value: &Value| match value {
        Value::Bool(value) => Some(*value),
        _ => None,
    };
    let mut codes = StringDictionaryBuilder::<Int16Type>::new();
    coded.iter().for_each(|value| codes.append_option(text(value)));
    let arrays: Vec<(&'static str, ArrayRef)> = vec![
        (
            "small",
            Arc::new(small.iter().map(|x| number(x, 1000).map(|x| x as i8)).collect::<Int8Array>()),
        ),
        ("large", Arc::new(large.iter().map(|x| number(x, 1000)).collect::<Int64Array>())),
        ("float", Arc::new(eighths.iter().map(float).collect::<Float32Array>())),
        (
            "price",
            Arc::new(
                (price.iter().map(|x| number(x, 10).map(i128::from)).collect::<Decimal128Array>())
                    .with_precision_and_scale(9, 2)
                    .unwrap(),
            ),
        ),
        ("plain", Arc::new(plain.iter().map(text).collect::<StringArray>())),
        ("coded", Arc::new(codes.finish())),
        ("view", Arc::new(view.iter().map(text).collect::<StringViewArray>())),
        ("flag", Arc::new(flag.iter().map(bool).collect::<BooleanArray>())),
    ];
    let names = arrays.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let values = [small, large, eighths, price, plain, coded, view, flag];
    Drawn { batch: named(arrays), columns: names.into_iter().zip(values).collect() }
}

const SIGNS: [&str; 6] = ["=", "!=", "<", "<=", ">", ">="];

fn draw_tree(random: &mut Random, depth: usize) -> Tree {
    let mut pick = |n: usize| random.next() as usize % n;
    if depth > 0 && pick(3) > 0 {
        let kind = pick(3);
        if kind == 0 {
            return Tree::Not(Box::new(draw_tree(random, depth - 1)));
        }
        let count = 2 + pick(3);
        let children = (0..count).map(|_| draw_tree(random, depth - 1)).collect();
        return if kind == 1 { Tree::And(children) } else { Tree::Or(children) };
    }
    let column = pick(8);
    let sign = SIGNS[pick(6)];
    if pick(6) == 0 {
        return Tree::Leaf(column, "is null", vec![]);
    }
    let values = |pick: &mut dyn FnMut(usize) -> usize, count| {
        (0..count)
            .map(|_| match column {
                0..=3 => Value::Number([500, 1000, 250, 125, 100][pick(5)] * (pick(11) as i64 - 5)),
                4..=6 => Value::Text(TEXTS[pick(TEXTS.len())].into()),
                _ => Value::Bool(pick(2) == 0),
            })
            .collect::<Vec<_>>()
    };
    if column == 7 {
        return match pick(3) {
            0 => Tree::Leaf(7, "", vec![]),
            1 => Tree::Leaf(7, "in", values(&mut pick, 1)),
            _ => Tree::Leaf(7, ["=", "!="][pick(2)], values(&mut pick, 1)),
        };
    }
    match pick(7) {
        0 => Tree::Leaf(column, "between", values(&mut pick, 2)),
        1 => {
            let count = 1 + pick(12);
            Tree::Leaf(column, "in", values(&mut pick, count))
        }
        2 if column < 2 => Tree::Pair(column, sign, pick(3)),
        2 if column < 4 => Tree::Pair(column, sign, column),
        2 => Tree::Pair(column, sign, 4 + pick(3)),
        3 if column >= 4 => {
            let pattern = (0..pick(5)).map(|_| ["%", "_", "a", "b", "A", "日"][pick(6)]).collect();
            Tree::Leaf(column, ["like", "ilike"][pick(2)], vec![Value::Text(pattern)])
        }
        4 if column >= 4 => {
            let word = ["startswith", "endswith", "contains"][pick(3)];
            Tree::Leaf(column, word, values(&mut pick, 1))
        }
        _ => Tree::Leaf(column, sign, values(&mut pick, 1)),
    }
}

/// One of the spellings.
fn any_of<const N: usize>(random: &mut Random, texts: [String; N]) -> String {
    let chosen = random.next() as usize % N;
    texts.into_iter().nth(chosen).unwrap()
}

fn spell_value(random: &mut Random, value: &Value) -> String {
    match value {
        Value::Number(x) => {
            let sign = if *x < 0 { "-" } else { "" };
            let x = x.abs();
            let decimal = format!("{sign}{}.{:03}", x / 1000, x % 1000);
            let short = format!("{sign}{}", x / 1000);
            let short = if x % 1000 == 0 { short } else { decimal.clone() };
            any_of(random, [decimal, short, format!("{sign}{x}e-3"), format!("{sign}0.{x:012}E9")])
        }
        Value::Text(text) => {
            let single = format!("'{text}'");
            any_of(random, [single.clone(), single, format!("\"{text}\"")])
        }
        Value::Bool(value) => any_of(random, [value.to_string(), value.to_string().to_uppercase()]),
        Value::Null | Value::Nan => unreachable!("none is drawn"),
    }
}

fn spell_sign(random: &mut Random, sign: &str) -> String {
    match sign {
        "=" => any_of(random, ["=".into(), "==".into()]),
        "!=" => any_of(random, ["!=".into(), "<>".into()]),
        sign => sign.into(),
    }
}

/// `not` stands before the word where it may.
fn spell_leaf(random: &mut Random, name: &str, word: &str, values: &[Value], not: bool) -> String {
    let column = any_of(random, [name.into(), format!("`{name}`"), format!("\"{name}\"")]);
    let values: Vec<_> = values.iter().map(|value| spell_value(random, value)).collect();
    let not_ = if not { "not " } else { "" };
    let list = values.join(", ");
    let outer = |text: String| format!("{not_}{text}");
    match word {
        "" => outer(column),
        "is null" => {
            let call = if not { "notnull" } else { "isna" };
            any_of(
                random,
                [
                    format!("{column} IS {not_}null"),
                    format!("{call}({column})"),
                    format!("{column}.{call}()"),
                    outer(format!("{column}.isnull()")),
                ],
            )
        }
        "in" => any_of(
            random,
            [
                format!("{column} {not_}in ({list})"),
                format!("{column} {not_}IN [{list},]"),
                outer(format!("{column}.isin([{list}])")),
            ],
        ),
        "between" => any_of(
            random,
            [
                format!("{column} {not_}between {} and {}", values[0], values[1]),
                outer(format!("{column}.between({list})")),
                outer(format!("{} <= {column} <= {}", values[0], values[1])),
                outer(format!("{column}>={}&{column}<={}", values[0], values[1]))
                    .replace("not ", "~(")
                    + if not { ")" } else { "" },
            ],
        ),
        "like" | "ilike" => format!("{column} {not_}{word} {list}"),
        "startswith" | "endswith" | "contains" => any_of(
            random,
            [
                outer(format!("{word}({column}, {list})")),
                outer(format!("{column}.{word}({list})")),
                outer(format!("{column}.str.{word}({list})")),
            ],
        ),
        sign => {
            let flipped = match sign {
                "<" => ">",
                "<=" => ">=",
                ">" => "<",
                ">=" => "<=",
                same => same,
            };
            let (sign, flipped) = (spell_sign(random, sign), spell_sign(random, flipped));
            any_of(
                random,
                [
                    outer(format!("{column} {sign} {list}")),
                    outer(format!("{column}{sign}({list})")),
                    outer(format!("{list} {flipped} {column}")),
                ],
            )
        }
    }
}

fn spell(random: &mut Random, drawn: &Drawn, tree: &Tree) -> String {
    match tree {
        Tree::Leaf(column, word, values) => {
            spell_leaf(random, drawn.columns[*column].0, word, values, false)
        }
        Tree::Pair(a, sign, b) => {
            let sign = spell_sign(random, sign);
            format!("{} {sign} `{}`", drawn.columns[*a].0, drawn.columns[*b].0)
        }
        Tree::Not(inner) => match &**inner {
            Tree::Leaf(column, word, values) => {
                spell_leaf(random, drawn.columns[*column].0, word, values, true)
            }
            inner => {
                let inner = spell(random, drawn, inner);
                any_of(random, [format!("not ({inner})"), format!("~({inner})")])
            }
        },
        Tree::And(children) => {
            let spelled: Vec<_> = (children.iter())
                .map(|child| match child {
                    Tree::Or(_) => format!("({})", spell(random, drawn, child)),
                    child => spell(random, drawn, child),
                })
                .collect();
            spelled.join(&any_of(random, [" and ".into(), " & ".into(), " AND ".into()]))
        }
        Tree::Or(children) => {
            let spelled: Vec<_> =
                children.iter().map(|child| spell(random, drawn, child)).collect();
            spelled.join(&any_of(random, [" or ".into(), " | ".into(), " Or ".into()]))
        }
    }
}

fn is_like(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some(('%', rest)), None) => is_like(rest, text),
        (Some(('%', rest)), Some((_, shorter))) => is_like(rest, text) || is_like(pattern, shorter),
        (Some((p, rest)), Some((t, shorter))) => (*p == '_' || p == t) && is_like(rest, shorter),
        _ => false,
    }
}

fn judge(left: &Value, word: &str, right: &[Value]) -> Option<bool> {
    if word == "is null" {
        return Some(*left == Value::Null);
    }
    if *left == Value::Null || right.contains(&Value::Null) {
        return None;
    }
    let order = |right: &Value| match (left, right) {
        (Value::Number(a), Value::Number(b)) => Some(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Some(a.chars().cmp(b.chars())),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None, // NaN
    };
    let chars = |value: &Value, fold: bool| match value {
        Value::Text(text) if fold => text.to_lowercase().chars().collect::<Vec<_>>(),
        Value::Text(text) => text.chars().collect(),
        _ => unreachable!("only texts are drawn for it"),
    };
    Some(match word {
        "" => *left == Value::Bool(true),
        "=" => order(&right[0]).is_some_and(std::cmp::Ordering::is_eq),
        "!=" => !order(&right[0]).is_some_and(std::cmp::Ordering::is_eq),
        "<" => order(&right[0]).is_some_and(std::cmp::Ordering::is_lt),
        "<=" => order(&right[0]).is_some_and(std::cmp::Ordering::is_le),
        ">" => order(&right[0]).is_some_and(std::cmp::Ordering::is_gt),
        ">=" => order(&right[0]).is_some_and(std::cmp::Ordering::is_ge),
        "in" => right.iter().any(|value| order(value).is_some_and(std::cmp::Ordering::is_eq)),
        "between" => {
            order(&right[0]).is_some_and(std::cmp::Ordering::is_ge)
                && order(&right[1]).is_some_and(std::cmp::Ordering::is_le)
        }
        "startswith" => chars(left, false).starts_with(&chars(&right[0], false)),
        "endswith" => chars(left, false).ends_with(&chars(&right[0], false)),
        "contains" => {
            let (text, part) = (chars(left, false), chars(&right[0], false));
            (0..=text.len()).any(|start| text[start..].starts_with(&part))
        }
        like => is_like(&chars(&right[0], like == "ilike"), &chars(left, like == "ilike")),
    })
}

/// SQL's three values, by its tables.
fn truth(drawn: &Drawn, tree: &Tree, row: usize) -> Option<bool> {
    let all = |children: &[Tree], stop: bool| {
        let values: Vec<_> = children.iter().map(|child| truth(drawn, child, row)).collect();
        if values.contains(&Some(stop)) {
            Some(stop)
        } else if values.contains(&None) {
            None
        } else {
            Some(!stop)
        }
    };
    match tree {
        Tree::And(children) => all(children, false),
        Tree::Or(children) => all(children, true),
        Tree::Not(inner) => truth(drawn, inner, row).map(|value| !value),
        Tree::Leaf(column, word, values) => judge(&drawn.columns[*column].1[row], word, values),
        Tree::Pair(a, sign, b) => {
            let (a, b) = (&drawn.columns[*a].1[row], &drawn.columns[*b].1[row]);
            judge(a, sign, std::slice::from_ref(b))
        }
    }
}

#[test]
fn drawn_predicates_pass_what_a_row_by_row_evaluator_passes() {
    let (mut passed, mut failed) = (0, 0);
    for seed in 0..3000 {
        let mut random = Random(seed);
        let rows = [0, 1, 70, 150][random.next() as usize % 4];
        let drawn = draw(&mut random, rows);
        let depth = random.next() as usize % 4;
        let tree = draw_tree(&mut random, depth);
        let text = spell(&mut random, &drawn, &tree);
        let expected: Vec<bool> =
            (0..rows).map(|row| truth(&drawn, &tree, row) == Some(true)).collect();
        let predicate = Predicate::parse(&text, drawn.batch.schema_ref())
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        let got: Vec<bool> = predicate.evaluate(&drawn.batch, 1).unwrap().iter().collect();
        assert_eq!(got, expected, "seed {seed}: {text}\n{predicate:?}");
        let (start, length) = (rows / 3, rows / 2); // columns that begin inside of a byte
        let got: Vec<bool> =
            predicate.evaluate(&drawn.batch.slice(start, length), 1).unwrap().iter().collect();
        assert_eq!(got, expected[start..start + length], "seed {seed}, sliced: {text}");
        passed += expected.iter().filter(|&&value| value).count();
        failed += expected.iter().filter(|&&value| !value).count();
    }
    assert!(passed > 20_000 && failed > 20_000, "{passed} passed, {failed} failed");
}

#[test]
fn threads_share_the_rows_of_a_batch() {
    let mut random = Random(3);
    for _ in 0..10 {
        let rows = 2 * WORTH_A_THREAD + random.next() as usize % WORTH_A_THREAD;
        let drawn = draw(&mut random, rows);
        let tree = draw_tree(&mut random, 2);
        let text = spell(&mut random, &drawn, &tree);
        let predicate = Predicate::parse(&text, drawn.batch.schema_ref()).unwrap();
        let alone = predicate.evaluate(&drawn.batch, 1).unwrap();
        assert_eq!(predicate.evaluate(&drawn.batch, 3).unwrap(), alone, "{rows} rows: {text}");
    }
}

/// Parts are looked for in all texts of a column at once: none may be found across two of them.
#[test]
fn parts_and_patterns_are_found_within_a_text_alone() {
    let mut random = Random(11);
    for turn in 0..300 {
        let mut pick = |n: u64| (random.next() % n) as usize;
        let letters = match turn % 4 {
            0 => &["a", "B", "ä"][..],
            1 => &["s", "S", "\u{17f}", "x"], // ſ, whose capital is S
            _ => &["a", "A", "b", "B"],
        };
        let mut word = |most: u64| -> String {
            let len = pick(most);
            (0..len).map(|_| letters[pick(letters.len() as u64)]).collect()
        };
        let texts: Vec<Option<String>> =
            (0..40).map(|row| (row % 7 != 3).then(|| word(5))).collect();
        let parts: Vec<String> = (0..4).map(|_| word(4)).collect();
        let patterns: Vec<String> =
            parts.iter().map(|part| format!("{}%{part}_", word(3))).collect();
        let layouts: [ArrayRef; 3] = [
            Arc::new(StringArray::from(texts.clone())),
            Arc::new(LargeStringArray::from(texts.clone())),
            Arc::new(texts.iter().collect::<StringViewArray>()),
        ];
        for array in layouts {
            let field = Field::new("t", array.data_type().clone(), true);
            let schema = Arc::new(Schema::new(vec![field]));
            let all = RecordBatch::try_new(schema, vec![array]).unwrap();
            for (batch, texts) in
                [(all.slice(0, 40), &texts[..]), (all.slice(9, 20), &texts[9..29])]
            {
                for (part, pattern) in parts.iter().zip(&patterns) {
                    let rows = |test: &dyn Fn(&str) -> bool| -> Vec<usize> {
                        let passing = |row: &usize| texts[*row].as_deref().is_some_and(test);
                        (0..texts.len()).filter(passing).collect()
                    };
                    let low = |text: &str| text.to_uppercase().to_lowercase();
                    let fold = low(part);
                    let like = |pattern: &str, text: &str| {
                        let chars = |text: &str| text.chars().collect::<Vec<char>>();
                        is_like(&chars(pattern), &chars(text))
                    };
                    let (around, fitted) = (format!("%{pattern}%"), format!("{part}%{part}"));
                    for (text, expected) in [
                        (format!("contains(t, '{part}')"), rows(&|text| text.contains(&**part))),
                        (format!("t like '%{part}%'"), rows(&|text| text.contains(&**part))),
                        (format!("t ilike '%{part}%'"), rows(&|text| low(text).contains(&fold))),
                        (format!("t ilike '{part}%'"), rows(&|text| low(text).starts_with(&fold))),
                        (format!("t ilike '%{part}'"), rows(&|text| low(text).ends_with(&fold))),
                        (format!("t ilike '{part}'"), rows(&|text| low(text) == fold)),
                        (format!("t like '{pattern}'"), rows(&|text| like(pattern, text))),
                        (format!("t like '{around}'"), rows(&|text| like(&around, text))),
                        (
                            format!("t ilike '{around}'"),
                            rows(&|text| like(&low(&around), &low(text))),
                        ),
                        (
                            format!("t ilike '{fitted}'"),
                            rows(&|text| like(&low(&fitted), &low(text))),
                        ),
                    ] {
                        assert_eq!(passes(&batch, &text), expected, "{text} in {texts:?}");
                    }
                }
            }
        }
    }
}
