/* Random calls with hostile arguments: each ends in a status, none in a crash; one that fails has a
 * message and has written nothing, and answers are in order. Usage: hostile CALLS SEED FILE. */

#include <math.h>
#include <omendb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HANDLES = 8, ROOM = 4096, MOST_ROWS = 400 };

static uint64_t state;

static uint64_t draw(uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
}

static int one_in(uint64_t n) { return draw(n) == 0; }

/* Big enough for whatever is said of it, unless no memory is. */
static double numbers[ROOM];
static int64_t ids[ROOM], out_ids[ROOM];
static double out_distances[ROOM];
static uint64_t out_counts[ROOM];
static uint8_t bits[ROOM], out_exact[ROOM];
static omen_recall_row table[64];
static omen_index *handles[HANDLES], *freed[HANDLES];
static uint64_t statuses[8];

/* A length: mostly small, sometimes more than memory can hold. */
static uint64_t length(uint64_t most) {
    static const uint64_t hostile[] = {UINT64_MAX, UINT64_MAX / 2, 1ull << 61, 1ull << 63};
    return one_in(50) ? hostile[draw(4)] : draw(most);
}

static omen_index *handle(void) {
    switch (draw(40)) {
    case 0: return NULL;
    case 1: return freed[draw(HANDLES)];
    case 2: return (omen_index *)(void *)numbers;
    case 3: return (omen_index *)(uintptr_t)draw(UINT64_MAX);
    default: return handles[draw(HANDLES)];
    }
}

/* An array, or NULL, which is right for a length of 0 only, or one that is not aligned. */
static void *at(void *array) {
    if (one_in(60)) return NULL;
    if (one_in(60)) return (char *)array + 1;
    return array;
}

static void fill(void) {
    float *floats = (float *)numbers;
    for (int i = 0; i < 600; i++) floats[i] = (float)draw(1000) / 100 - 5;
    if (one_in(20)) floats[draw(40)] = one_in(2) ? NAN : INFINITY;
    for (int i = 0; i < 64; i++) ids[i] = (int64_t)draw(300) + (one_in(40) ? INT64_MAX - 299 : 0);
    if (one_in(2)) /* mostly different ones */
        for (int i = 0; i < 64; i++) ids[i] = (int64_t)(i + draw(4) * 64);
    for (int i = 0; i < 64; i++) bits[i] = (uint8_t)draw(256);
}

static int32_t enough(void *context, uint64_t query, uint64_t count, const int64_t *found,
                      const double *distances) {
    (void)query;
    for (uint64_t i = 0; i < count; i++) *(double *)context += (double)found[i] + distances[i];
    return one_in(10);
}

static int32_t maybe(void *context, uint64_t done, uint64_t total) {
    (void)context;
    return done <= total && one_in(3);
}

static const omen_search_options *search_options(omen_search_options *options) {
    static const omen_search_options plain = OMEN_SEARCH_OPTIONS_INIT;
    *options = plain;
    if (one_in(2)) return NULL;
    options->method = (omen_method)draw(3);
    options->threads = one_in(30) ? length(3) : draw(3);
    if (one_in(4)) options->effort = length(100);
    if (one_in(4)) options->exact = out_exact;
    if (one_in(6)) {
        options->filter_ids = at(ids);
        options->n_filter_ids = length(20);
    }
    if (one_in(6)) {
        options->filter_bits = at(bits);
        options->n_filter_bytes = one_in(3) ? length(60) : draw(60);
    }
    if (one_in(10)) options->dtype = (omen_dtype)draw(9) - 1;
    if (one_in(30)) options->method = (omen_method)draw(UINT32_MAX);
    if (one_in(20)) options->row_stride = length(64);
    if (one_in(50)) options->size = length(200);
    return options;
}

static void count(omen_status status) {
    if (status < 0 || status > 7 || status == OMEN_FAULT || !omen_last_error()) {
        fprintf(stderr, "status %d: %s\n", (int)status, omen_last_error());
        exit(1);
    }
    if (status != OMEN_OK && omen_last_error()[0] == '\0') {
        fprintf(stderr, "status %d without a message\n", (int)status);
        exit(1);
    }
    statuses[status]++;
}

/* What was found is in order, and of the length that was told. */
static void search(void) {
    omen_search_options options;
    const omen_index *index = handle();
    uint64_t n = length(6), k = length(12);
    if (n < 6 && k > 64 && one_in(2)) k = 64;
    if (n && k > ROOM / n && k < 1ull << 60) return; /* no room for such an answer */
    out_counts[0] = 77;
    omen_status status = omen_search(index, at(numbers), n, k, search_options(&options),
                                     at(out_ids), at(out_distances), at(out_counts));
    count(status);
    if (status != OMEN_OK) {
        if (out_counts[0] != 77) {
            fputs("a failed search wrote\n", stderr);
            exit(1);
        }
        return;
    }
    for (uint64_t q = 0; q < n; q++) {
        int in_order = out_counts[q] <= k;
        for (uint64_t i = q * k + 1; i < q * k + out_counts[q]; i++)
            in_order &= out_distances[i - 1] <= out_distances[i];
        if (!in_order) {
            fputs("answers are not in order\n", stderr);
            exit(1);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    uint64_t calls = strtoull(argv[1], NULL, 10);
    state = strtoull(argv[2], NULL, 10);
    double sum = 0;
    fill();
    for (uint64_t i = 0; i < calls; i++) {
        uint64_t at_handle = draw(HANDLES);
        uint64_t len = 0;
        if (one_in(4)) fill();
        switch (draw(40)) {
        case 0: { /* mostly small dimensions, so that the numbers are enough */
            omen_options options = OMEN_OPTIONS_INIT;
            options.metric = (omen_metric)draw(6);
            if (one_in(4)) options.dtype = (omen_dtype)draw(7);
            if (one_in(20)) options.metric = (omen_metric)draw(UINT32_MAX);
            if (one_in(20)) options.dtype = (omen_dtype)draw(UINT32_MAX);
            if (one_in(20)) options.row_stride = length(100);
            if (one_in(30)) options.size = length(100);
            omen_index *made = NULL;
            uint64_t dim = one_in(30) ? length(2) : 1 + draw(8);
            if (dim > 8 && dim < 1ull << 61) dim = 8;
            omen_status status =
                omen_create(dim, one_in(3) ? NULL : &options, one_in(50) ? NULL : &made);
            count(status);
            if (status != OMEN_OK) break;
            if (dim > 8 || options.row_stride > 100) {
                count(omen_free(made)); /* allowed, but no array here is so wide */
                break;
            }
            freed[at_handle] = handles[at_handle];
            if (handles[at_handle]) count(omen_free(handles[at_handle]));
            handles[at_handle] = made;
            break;
        }
        case 1:
            if (one_in(20)) count(omen_free(one_in(2) ? freed[at_handle] : NULL));
            break;
        case 2: case 3: case 4: case 5: case 6: {
            omen_index *index = handle();
            if (omen_len(index, &len) == OMEN_OK && len > MOST_ROWS) {
                count(omen_remove(index, ids, 0));
                if (index == handles[at_handle]) {
                    count(omen_free(index));
                    handles[at_handle] = NULL;
                    freed[at_handle] = index;
                }
                break;
            }
            const int64_t *given = one_in(2) ? NULL : at(ids);
            count(one_in(2) ? omen_add(index, at(numbers), length(20), given)
                            : omen_add(index, at(numbers), draw(20), NULL));
            break;
        }
        case 7: {
            /* The array stays as it is: what is borrowed must not change. */
            static const float still[64] = {1, 2, 3, 4, 5, 6, 7, 8};
            omen_index *index = handle();
            omen_statistics stats = OMEN_STATISTICS_INIT;
            if (omen_stats(index, &stats) == OMEN_OK && stats.len < MOST_ROWS)
                count(omen_borrow(index, still, length(2), NULL));
            break;
        }
        case 8: case 9: count(omen_remove(handle(), at(ids), length(8))); break;
        case 10: case 11: count(omen_update(handle(), at(ids), at(numbers), length(8))); break;
        case 12: {
            omen_search_options options;
            omen_found found = one_in(20) ? NULL : enough;
            double radius = one_in(20) ? NAN : (double)draw(10) - 1;
            count(omen_search_radius(handle(), at(numbers), length(4), radius,
                                     search_options(&options), found, &sum));
            break;
        }
        case 13: {
            omen_graph_options options = OMEN_GRAPH_OPTIONS_INIT;
            options.seed = draw(UINT64_MAX);
            if (one_in(20)) options.size = length(40);
            if (one_in(4)) count(omen_build_graph(handle(), one_in(2) ? NULL : &options));
            break;
        }
        case 14: {
            if (!one_in(40)) break; /* slow */
            omen_recall_report report = OMEN_RECALL_REPORT_INIT;
            omen_search_options options;
            report.table = one_in(2) ? NULL : table;
            report.table_capacity = report.table ? draw(64) : 0;
            if (one_in(10)) report.table_capacity = length(64);
            if (one_in(20)) report.size = length(100);
            count(omen_tune(handle(), (double)draw(12) / 10, length(12), at(numbers), length(5),
                            search_options(&options), one_in(5) ? NULL : &report));
            break;
        }
        case 15:
            if (one_in(100)) count(omen_save(handle(), one_in(10) ? NULL : argv[3]));
            break;
        case 16: {
            if (!one_in(50)) break;
            omen_index *loaded = NULL;
            omen_status status = omen_load(one_in(10) ? NULL : one_in(10) ? "/" : argv[3],
                                           (int32_t)draw(2), one_in(20) ? NULL : &loaded);
            count(status);
            if (status == OMEN_OK) count(omen_free(loaded));
            break;
        }
        case 17: count(omen_len(handle(), at(&len))); break;
        case 18: count(omen_dim(handle(), at(&len))); break;
        case 19: count(omen_ids(handle(), at(out_ids), one_in(5) ? length(400) : 400, at(&len))); break;
        case 20: {
            omen_statistics stats = OMEN_STATISTICS_INIT;
            if (one_in(20)) stats.size = length(100);
            count(omen_stats(handle(), one_in(20) ? NULL : &stats));
            break;
        }
        case 21: count(omen_set_threads(handle(), one_in(4) ? length(4) : draw(3))); break;
        case 22: count(omen_set_cancel(handle(), one_in(2) ? NULL : maybe, NULL)); break;
        default: search();
        }
    }
    for (int i = 0; i < HANDLES; i++) count(omen_free(handles[i]));
    printf("%llu calls:", (unsigned long long)calls);
    for (int i = 0; i < 8; i++) printf(" %llu", (unsigned long long)statuses[i]);
    puts(sum == sum ? " of each status" : " of each status, with NaN");
    return 0;
}
