//! Arrow arrays in a file: every type comes back, Arrow's own reader sees the same, and nothing that
//! is damaged or crafted becomes an array.

use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int32Type, UInt8Type, UInt16Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array,
    DictionaryArray, DurationNanosecondArray, FixedSizeBinaryArray, Float16Array, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, LargeBinaryArray,
    LargeStringArray, NullArray, RecordBatch, StringArray, Time32SecondArray,
    Time64NanosecondArray, TimestampMicrosecondArray, TimestampSecondArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow_buffer::Buffer;
use arrow_ipc::reader::FileReader;
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use half::f16;

use super::tests::Places;
use super::*;
use crate::error::{Error, Result};
use crate::threads::{Silent, alone};

/// A file of every type of array, 5 rows, also for readers in other languages: without what Polars
/// does not take, bytes of no width and a decimal of negative scale.
const SAMPLE: &[u8] = include_bytes!("arrays.omen");

/// A value in four places of five, different ones in different columns.
fn some<T>(rows: usize, skip: usize, value: impl Fn(usize) -> T) -> Vec<Option<T>> {
    (0..rows).map(|i| (i % 5 != skip).then(|| value(i))).collect()
}

/// A column of every type that a file holds.
fn table(rows: usize) -> RecordBatch {
    let text =
        |i: usize| ["", "a", "zwölf", "日本語", "a longer text of some bytes"][i % 5].repeat(i % 3);
    let bytes = |i: usize| vec![i as u8; i % 4];
    let uuid = some(rows, 1, |i| [i as u8; 16]).into_iter();
    let uuid = FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuid, 16).unwrap();
    let nothing =
        FixedSizeBinaryArray::try_from_sparse_iter_with_size(some(rows, 2, |_| []).into_iter(), 0);
    let zone = Some(Arc::from("Europe/Berlin"));
    // One category that no row has, none in the order of the rows.
    let levels: ArrayRef = Arc::new(StringArray::from(vec!["low", "mid", "high", "unused"]));
    let level = |i: usize| [2, 0, 1][i % 3];
    let codes: ArrayRef = Arc::new(Int64Array::from(vec![Some(70), None, Some(-5)]));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("null", Arc::new(NullArray::new(rows))),
        ("bool", Arc::new(BooleanArray::from(some(rows, 0, |i| i % 3 == 0)))),
        ("int8", Arc::new(Int8Array::from(some(rows, 1, |i| (i % 100) as i8 - 50)))),
        ("int16", Arc::new(Int16Array::from(some(rows, 2, |i| i as i16)))),
        ("int32", Arc::new(Int32Array::from(some(rows, 3, |i| i as i32 * 100_000)))),
        ("int64", Arc::new(Int64Array::from(some(rows, 4, |i| i as i64 - (1 << 60))))),
        ("uint8", Arc::new(UInt8Array::from(some(rows, 0, |i| i as u8)))),
        ("uint16", Arc::new(UInt16Array::from(some(rows, 1, |i| i as u16)))),
        ("uint32", Arc::new(UInt32Array::from(some(rows, 2, |i| u32::MAX - i as u32)))),
        ("uint64", Arc::new(UInt64Array::from(some(rows, 3, |i| u64::MAX - i as u64)))),
        ("float16", Arc::new(Float16Array::from(some(rows, 4, |i| f16::from_f32(i as f32))))),
        ("float32", Arc::new(Float32Array::from(some(rows, 0, |i| i as f32 / 3.0)))),
        ("float64", Arc::new(Float64Array::from(some(rows, 1, |i| i as f64 / 3.0)))),
        ("utf8", Arc::new(StringArray::from(some(rows, 2, text)))),
        ("large_utf8", Arc::new(LargeStringArray::from(some(rows, 3, text)))),
        ("binary", Arc::new(some(rows, 4, bytes).into_iter().collect::<BinaryArray>())),
        ("large_binary", Arc::new(some(rows, 0, bytes).into_iter().collect::<LargeBinaryArray>())),
        ("uuid", Arc::new(uuid)),
        ("nothing", Arc::new(nothing.unwrap())),
        ("date32", Arc::new(Date32Array::from(some(rows, 3, |i| i as i32 + 20_000)))),
        ("date64", Arc::new(Date64Array::from(some(rows, 4, |i| i as i64 * 86_400_000)))),
        ("time32", Arc::new(Time32SecondArray::from(some(rows, 0, |i| i as i32 % 86_400)))),
        ("time64", Arc::new(Time64NanosecondArray::from(some(rows, 1, |i| i as i64 * 1000)))),
        ("second", Arc::new(TimestampSecondArray::from(some(rows, 2, |i| i as i64 * 86_000)))),
        (
            "zoned",
            Arc::new(
                TimestampMicrosecondArray::from(some(rows, 3, |i| {
                    1_700_000_000_000_000 + i as i64
                }))
                .with_timezone_opt(zone),
            ),
        ),
        ("duration", Arc::new(DurationNanosecondArray::from(some(rows, 4, |i| -(i as i64))))),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from(some(rows, 0, |i| i as i128 * 123 - 999))
                    .with_precision_and_scale(38, 2)
                    .unwrap(),
            ),
        ),
        (
            "thousands",
            Arc::new(
                Decimal128Array::from(some(rows, 0, |i| i as i128 % 1000))
                    .with_precision_and_scale(3, -3)
                    .unwrap(),
            ),
        ),
        (
            "level",
            Arc::new(DictionaryArray::<Int8Type>::new(
                some(rows, 1, |i| level(i) as i8).into(),
                Arc::clone(&levels),
            )),
        ),
        (
            "ordered",
            Arc::new(DictionaryArray::<UInt16Type>::new(
                some(rows, 2, |i| level(i) as u16).into(),
                levels,
            )),
        ),
        ("code", Arc::new(DictionaryArray::<Int32Type>::new(some(rows, 3, level).into(), codes))),
        (
            "empty",
            Arc::new(DictionaryArray::<UInt8Type>::new(
                vec![None; rows].into(),
                Arc::new(LargeStringArray::from(Vec::<&str>::new())),
            )),
        ),
        ("full", Arc::new((0..rows as i64).collect::<Int64Array>())),
        ("words", Arc::new(StringArray::from_iter_values((0..rows).map(text)))),
    ];
    let fields = columns.iter().map(|(name, array)| {
        let nullable = !matches!(*name, "full" | "words");
        let metadata = HashMap::from([("unit".to_owned(), format!("of {name}"))]);
        Field::new(*name, array.data_type().clone(), nullable)
            .with_dict_is_ordered(*name == "ordered")
            .with_metadata(if *name == "zoned" { metadata } else { HashMap::new() })
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect())
        .unwrap()
}

fn sample() -> RecordBatch {
    let mut table = table(5);
    for name in ["nothing", "thousands"] {
        table.remove_column(table.schema_ref().index_of(name).unwrap());
    }
    table
}

fn columns(table: &RecordBatch) -> Vec<Column<'static>> {
    let fields = table.schema_ref().fields().iter();
    fields
        .zip(table.columns())
        .map(|(field, array)| Column::of_array(field.as_ref().clone(), array).unwrap())
        .collect()
}

fn to_bytes(rows: usize, columns: Vec<Column<'_>>) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.omen");
    write(&path, rows, columns, &[("note", "für alle")], &mut Silent).unwrap();
    fs::read(path).unwrap()
}

fn read(bytes: &[u8]) -> Result<RecordBatch> {
    let mapped = Mapped::of_bytes(bytes)?;
    let columns = mapped.others(&[]);
    let arrays = columns.iter().map(|&column| alone(|worker| mapped.array(column, worker)));
    let fields: Vec<_> = columns.iter().map(|&column| mapped.field(column).clone()).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.collect::<Result<_>>()?).unwrap())
}

fn assert_same(got: &RecordBatch, expected: &RecordBatch) {
    assert_eq!(got.schema_ref().fields(), expected.schema_ref().fields());
    for (field, expected) in got.schema_ref().fields().iter().zip(expected.schema_ref().fields()) {
        assert_eq!(field.dict_is_ordered(), expected.dict_is_ordered());
    }
    for (number, expected) in expected.columns().iter().enumerate() {
        let (got, name) = (got.column(number), &got.schema_ref().field(number).name());
        assert_eq!(&got.to_data(), &expected.to_data(), "{name}");
        assert_eq!(got.null_count(), expected.null_count(), "{name}");
        if let Some(dictionary) = expected.as_any_dictionary_opt() {
            // Values that no row has as well.
            assert_eq!(got.as_any_dictionary().values(), dictionary.values(), "{name}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn every_type_of_array_comes_back_and_arrow_reads_the_same() {
    for rows in [0, 1, 2, 8, 9, 64, 1000, 20_000] {
        let whole = table(rows);
        for (start, len) in [(0, rows), (rows / 3, rows / 2), (rows.min(3), 0), (rows / 2, 1)] {
            let part = whole.slice(start, len.min(rows - start));
            let bytes = to_bytes(part.num_rows(), columns(&part));
            let again = read(&bytes).unwrap();
            assert_same(&again, &part);
            assert!(
                to_bytes(again.num_rows(), columns(&again)) == bytes,
                "{start} {len} of {rows}"
            );
            explore(&bytes).unwrap();

            let mut reader = FileReader::try_new(Cursor::new(&bytes), None).unwrap();
            assert_eq!(reader.schema().metadata()["note"], "für alle");
            let batch = reader.next().unwrap().unwrap();
            assert!(reader.next().is_none());
            batch.columns().iter().for_each(|array| array.to_data().validate_full().unwrap());
            assert_same(&batch, &part);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn nothing_of_the_rows_around_a_slice_is_written() {
    let file = |rows: usize, from: usize| {
        let flag = |i: usize| (i % 5 != 4).then_some(true);
        let flags: ArrayRef = Arc::new((0..rows).map(flag).collect::<BooleanArray>());
        let word = |i: usize| flag(i).map(|_| if i < 5 { "public" } else { "secret" });
        let words: ArrayRef = Arc::new((0..rows).map(word).collect::<StringArray>());
        let table = RecordBatch::try_from_iter_with_nullable([
            ("flags", flags, true),
            ("words", words, true),
        ])
        .unwrap();
        let table = table.slice(from, 5 - from);
        to_bytes(table.num_rows(), columns(&table))
    };
    for from in [0, 3] {
        assert!(file(5, from) == file(50, from));
    }
}

/// `OMENDB_WRITE_SAMPLE=1 cargo test --features table sample` writes the committed file again.
#[test]
fn the_committed_sample_of_arrays_reads_as_it_was_written() {
    if std::env::var_os("OMENDB_WRITE_SAMPLE").is_some() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/file/arrays.omen");
        fs::write(home, to_bytes(5, columns(&sample()))).unwrap();
        return;
    }
    assert_same(&read(SAMPLE).unwrap(), &sample());
    if !cfg!(miri) {
        assert!(to_bytes(5, columns(&sample())) == SAMPLE, "the same columns give other bytes");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes hours there")]
fn no_change_of_a_byte_of_arrays_and_no_truncation_is_silent() {
    explore(SAMPLE).unwrap();
    let mut bytes = SAMPLE.to_vec();
    for at in 0..bytes.len() {
        let right = bytes[at];
        for wrong in (0..8).map(|bit| right ^ 1 << bit).chain([0, 0xff, b'0', b'f']) {
            bytes[at] = wrong;
            assert_eq!(explore(&bytes).is_ok(), wrong == right, "byte {at} as {wrong}");
        }
        bytes[at] = right;
        assert!(explore(&bytes[..at]).is_err(), "cut at {at}");
    }
}

/// A file of one column that is changed before it is written, under right checksums.
fn crafted(field: Field, array: &dyn Array, change: impl FnOnce(&mut Column<'static>)) -> Vec<u8> {
    let mut column = Column::of_array(field, array).unwrap();
    change(&mut column);
    to_bytes(array.len(), vec![Column::of("ids", 0, &vec![0i64; array.len()]), column])
}

fn source(bytes: impl Into<Buffer>) -> super::write::Source<'static> {
    let mut bytes = Some(bytes.into());
    Box::new(move |out| out.extend(bytes.take().as_deref().unwrap_or_default()))
}

fn refusal(bytes: &[u8], column: &str) -> String {
    // What the columns need not be read for is refused where the file is opened.
    let opened = Mapped::of_bytes(bytes).is_ok();
    match explore(bytes) {
        Err(Error::Damaged { what, column: named, .. }) => {
            assert_eq!(named.as_deref(), opened.then_some(column), "{what}");
            what
        }
        other => panic!("expected a damaged file, got {other:?}"),
    }
}

#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn crafted_offsets_and_text_become_no_array() {
    fn offsets<T: arrow_buffer::ArrowNativeType>(data_type: &DataType, number: impl Fn(i64) -> T) {
        let text = StringArray::from(vec!["ab", "é", "c"]);
        let array: ArrayRef = match data_type {
            DataType::Utf8 => Arc::new(text),
            DataType::LargeUtf8 => Arc::new(text.iter().collect::<LargeStringArray>()),
            DataType::Binary => Arc::new(text.iter().collect::<BinaryArray>()),
            _ => Arc::new(text.iter().collect::<LargeBinaryArray>()),
        };
        let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8);
        let big = if size_of::<T>() == 4 { i64::from(i32::MAX) } else { i64::MAX };
        let cases = [
            ([0, 2, 4, 5], true),
            ([0, 3, 4, 5], !is_text), // inside a letter
            ([0, 4, 2, 5], false),
            ([0, 2, 4, 6], false),
            ([0, 2, 4, big], false),
            ([-1, 2, 4, 5], false),
            ([0, 2, -4, 5], false),
            ([big, big, big, big], false),
            ([5, 4, 2, 0], false),
        ];
        for (offsets, good) in cases {
            let bytes = crafted(Field::new("x", data_type.clone(), true), &array, |column| {
                let offsets: Vec<T> = offsets.iter().map(|&offset| number(offset)).collect();
                column.sources[0] = source(offsets);
            });
            if good {
                explore(&bytes).unwrap();
            } else {
                let what = refusal(&bytes, "x");
                assert!(what.starts_with("column x makes no sense: "), "{offsets:?}: {what}");
            }
        }
        for wrong in [b"a\xffbcd", b"ab\xc3dc", b"\xed\xa0\x80bc", b"ab\xc0\x80c"] {
            let bytes = crafted(Field::new("x", data_type.clone(), true), &array, |column| {
                column.sources[1] = source(wrong.to_vec());
            });
            assert_eq!(explore(&bytes).is_err(), is_text);
        }
    }
    offsets(&DataType::Utf8, |x| x as i32);
    offsets(&DataType::Binary, |x| x as i32);
    offsets(&DataType::LargeUtf8, |x| x);
    offsets(&DataType::LargeBinary, |x| x);
}

#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn crafted_nulls_keys_and_digits_become_no_array() {
    let field = |data_type: &DataType| Field::new("x", data_type.clone(), true);
    let numbers = Int32Array::from(vec![Some(1), None, Some(3)]);
    for (nulls, bits, good) in
        [(1, 0b101u8, true), (2, 0b101, false), (1, 0b111, false), (3, 0, true), (3, 0b100, false)]
    {
        let bytes = crafted(field(&DataType::Int32), &numbers, |column| {
            column.shape.nulls = nulls;
            column.sources[0] = source(vec![bits]);
        });
        if good {
            explore(&bytes).unwrap();
        } else {
            assert!(refusal(&bytes, "x").contains("of its values are null"));
        }
    }
    // Nulls where the field says that there are none.
    let bytes = crafted(field(&DataType::Int32), &numbers, |column| {
        column.shape.field = Field::new("x", DataType::Int32, false);
    });
    assert_eq!(refusal(&bytes, "x"), "its columns are not where those of its rows would be");
    let bytes = crafted(field(&DataType::Null), &NullArray::new(3), |column| {
        column.shape.field = Field::new("x", DataType::Null, false);
    });
    assert!(refusal(&bytes, "x").contains("3 of its values are null, and it says that none is"));

    let values: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b")]));
    let coded = DictionaryArray::<Int8Type>::new(vec![0, 2, 2].into(), Arc::clone(&values));
    let coded_field = Field::new("x", coded.data_type().clone(), false);
    for (keys, good) in
        [([0, 2, 0], true), ([0, 3, 0], false), ([0, -1, 0], false), ([0, 1, 0], false)]
    {
        let bytes = crafted(coded_field.clone(), &coded, |column| {
            column.sources[0] = source(keys.map(|key: i8| key as u8).to_vec());
        });
        if good {
            explore(&bytes).unwrap();
        } else {
            assert!(refusal(&bytes, "x").starts_with("column x makes no sense: "), "{keys:?}");
        }
    }
    let bytes = crafted(coded_field, &coded, |column| {
        let (_, dictionary) = column.dictionary.as_mut().unwrap();
        dictionary.sources[2] = source(b"a\xff".to_vec());
    });
    assert!(refusal(&bytes, "x").contains("column x makes no sense: "));

    let money = Decimal128Array::from(vec![Some(99), None]).with_precision_and_scale(2, 1).unwrap();
    for (value, good) in [(-99, true), (100, false), (i128::MAX, false), (i128::MIN, false)] {
        let bytes = crafted(field(money.data_type()), &money, |column| {
            column.sources[1] = source(vec![value, i128::MAX]);
        });
        if good {
            explore(&bytes).unwrap();
        } else {
            assert!(refusal(&bytes, "x").contains("of precision 2"), "{value}");
        }
    }
    for (precision, scale) in [(0, 0), (39, 0), (255, 0), (2, 3), (38, 39)] {
        let bytes = crafted(field(money.data_type()), &money, |column| {
            column.shape.field = field(&DataType::Decimal128(precision, scale));
        });
        assert!(refusal(&bytes, "x").starts_with("column x makes no sense: "));
    }
}

#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn a_type_or_a_size_that_the_bytes_do_not_have_is_refused() {
    let numbers = Int32Array::from(vec![Some(1), None, Some(3)]);
    let field = |data_type| Field::new("x", data_type, true);
    let retyped = |data_type: DataType| {
        let bytes = crafted(field(DataType::Int32), &numbers, |column| {
            column.shape.field = field(data_type);
        });
        refusal(&bytes, "x")
    };
    let places = "its columns are not where those of its rows would be";
    for wrong in [
        DataType::Boolean,
        DataType::Int8,
        DataType::UInt64,
        DataType::Utf8,
        DataType::LargeBinary,
        DataType::FixedSizeBinary(3),
        DataType::FixedSizeBinary(i32::MAX),
        DataType::Null,
        DataType::Decimal128(38, 0),
        DataType::Timestamp(TimeUnit::Second, None),
    ] {
        assert_eq!(retyped(wrong), places);
    }
    for foreign in [
        DataType::Utf8View,
        DataType::BinaryView,
        DataType::FixedSizeBinary(-1),
        DataType::Decimal32(3, 0),
        DataType::Decimal64(3, 0),
        DataType::Decimal256(3, 0),
        DataType::Interval(arrow_schema::IntervalUnit::DayTime),
        DataType::List(Arc::new(field(DataType::Int32))),
        DataType::FixedSizeList(Arc::new(field(DataType::Float32)), 1), // of what may be null
        DataType::Struct(vec![field(DataType::Int32)].into()),
        DataType::Map(Arc::new(field(DataType::Int32)), false),
    ] {
        assert_eq!(retyped(foreign), "column x is of a type that omendb does not write");
    }
    let keyed = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    assert_eq!(retyped(keyed), "it has not one dictionary for each column of such");
}

#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn dictionaries_that_are_not_those_of_the_columns_are_refused() {
    let coded = |words: [&str; 2]| -> ArrayRef {
        let values = Arc::new(StringArray::from(words.to_vec()));
        Arc::new(DictionaryArray::<Int8Type>::new(vec![0, 1, 0].into(), values))
    };
    // Three, since the first's number is no number in the file.
    let words = [("x", coded(["a", "b"])), ("y", coded(["c", "d"])), ("z", coded(["e", "f"]))];
    let table = RecordBatch::try_from_iter(words).unwrap();
    let good = to_bytes(3, columns(&table));
    // Both whole, with the checksums that belong to them, but in another order.
    let places = Places::of(&good);
    let [_, second, third, last] = &places.described[..] else { panic!("{:?}", places.described) };
    let mut bad = good.clone();
    bad[second.start..last.start].rotate_left(third.start - second.start);
    places.reseal(&good, &mut bad);
    assert_eq!(refusal(&bad, "x"), "its message is not the dictionary that is due");
    // The places of both exchanged in the footer.
    let mut bad = good.clone();
    let block = |message: &Range<usize>| {
        let block = [message.start, message.len()].map(|number| (number as u64).to_le_bytes());
        good.windows(16).rposition(|bytes| bytes == block.concat()).unwrap()
    };
    let (second, third) = (block(second), block(third));
    (0..24).for_each(|i| bad.swap(second + i, third + i));
    places.reseal(&good, &mut bad);
    assert_eq!(refusal(&bad, "x"), "its record batch does not fill the file");
    // One too many.
    let numbers = Int32Array::from(vec![1, 2]);
    let bytes = crafted(Field::new("x", DataType::Int32, true), &numbers, |column| {
        let field = Field::new("y", table.column(1).data_type().clone(), true);
        column.dictionary = Column::of_array(field, table.column(1)).unwrap().dictionary;
    });
    assert_eq!(refusal(&bytes, "x"), "it has not one dictionary for each column of such");
}

#[test]
fn what_a_file_does_not_hold_is_refused_by_name() {
    let refused = |field: Field, array: ArrayRef| match Column::of_array(field, &array) {
        Err(Error::InvalidParameter(what)) => what,
        other => panic!("{:?}", other.map(|column| column.shape)),
    };
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    let views: ArrayRef = Arc::new(arrow_array::StringViewArray::from(vec!["a", "b"]));
    let field = Field::new("naïve", DataType::Utf8View, true);
    assert!(refused(field, views).starts_with("column naïve is of type Utf8View, which a file"));
    let field = Field::new("x", DataType::Int32, false);
    let what = refused(field, Arc::clone(&numbers));
    assert_eq!(
        what,
        "column x cannot be saved: 1 of its values are null, and it says that none is"
    );
    let what = refused(Field::new("x", DataType::Int64, true), numbers);
    assert_eq!(what, "column x cannot be saved: its values are Int32, not Int64");
    let money = Decimal128Array::from(vec![1000]).with_precision_and_scale(3, 0).unwrap();
    let field = Field::new("x", money.data_type().clone(), true);
    let what = refused(field, Arc::new(money));
    assert!(what.contains("column x cannot be saved: "), "{what}");
    let list = DataType::new_fixed_size_list(DataType::Float32, 2, false);
    let lists = arrow_array::new_empty_array(&list);
    assert!(refused(Field::new("x", list, true), lists).contains("which a file does not hold"));
}

#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn damage_to_an_array_or_its_dictionary_is_named() {
    let rows = 40_000;
    let text = StringArray::from_iter_values((0..rows).map(|i| format!("row {i}")));
    let values: ArrayRef = Arc::new(text.clone());
    let keys = (0..rows).collect::<Int32Array>();
    let coded = DictionaryArray::<Int32Type>::new(keys, values);
    let fields = vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("coded", coded.data_type().clone(), true),
    ];
    let table =
        RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(text), Arc::new(coded)]);
    let good = to_bytes(rows as usize, columns(&table.unwrap()));
    let places: Vec<_> = good.windows(9).enumerate().filter(|(_, w)| w == b"row 39999").collect();
    assert_eq!(places.len(), 2); // the dictionary first
    for (number, whose) in ["the dictionary of column coded", "column text"].iter().enumerate() {
        let mut bad = good.clone();
        bad[places[number].0] ^= 1;
        let what = refusal(&bad, whose[whose.len() - 5..].trim_start());
        // Behind the blocks of 40,001 offsets.
        assert!(what.starts_with(&format!("block 8 of {whose} (bytes ")), "{what}");
    }
}
