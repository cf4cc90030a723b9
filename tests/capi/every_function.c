/* Every function of omendb.h, once and rightly, in C99; and struct layouts, which must not change. */

#include <math.h>
#include <omendb.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #condition,            \
                    omen_last_error());                                                            \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define OK(call) CHECK((call) == OMEN_OK)

enum { DIM = 8, ROWS = 3000, QUERIES = 20, K = 5 };

/* A row with something behind it: what row_stride is for. */
struct record {
    float vector[DIM];
    int64_t tag;
};

struct met {
    uint64_t queries, rows;
    double farthest;
};

static int32_t meet(void *context, uint64_t query, uint64_t count, const int64_t *ids,
                    const double *distances) {
    struct met *met = context;
    CHECK(query == met->queries);
    met->queries += 1;
    met->rows += count;
    for (uint64_t i = 0; i < count; i++) {
        CHECK(ids[i] >= 0);
        met->farthest = fmax(met->farthest, distances[i]);
    }
    return met->queries == 2; /* two are enough */
}

static int32_t stop(void *context, uint64_t done, uint64_t total) {
    CHECK(done <= total);
    *(int *)context += 1;
    return 1;
}

struct asked {
    omen_index *index;
    const float *queries;
    int depth, deepest, times;
};

/* Searches for long within a callback, which asks nobody. */
static int32_t search_again(void *context, uint64_t done, uint64_t total) {
    struct asked *asked = context;
    static int64_t found[ROWS];
    static double distances[ROWS];
    static uint64_t counts[ROWS];
    CHECK(done <= total);
    asked->times++;
    asked->depth++;
    if (asked->depth > asked->deepest) asked->deepest = asked->depth;
    OK(omen_search(asked->index, asked->queries, ROWS / 20, 1, NULL, found, distances, counts));
    asked->depth--;
    return 1;
}

/* The threads of this process, where the system tells. */
static int threads(void) {
    int count = 0;
#ifdef __linux__
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    CHECK(status);
    while (fgets(line, sizeof line, status)) sscanf(line, "Threads: %d", &count);
    fclose(status);
#endif
    return count;
}

/* Changes one byte of the first place in a file that holds these numbers. */
static void damage(const char *path, const float *vector) {
    FILE *file = fopen(path, "r+b");
    CHECK(file && fseek(file, 0, SEEK_END) == 0);
    long size = ftell(file), at = 0;
    char *bytes = malloc((size_t)size);
    rewind(file);
    CHECK(bytes && fread(bytes, 1, (size_t)size, file) == (size_t)size);
    while (at + (long)sizeof(float) * DIM <= size && memcmp(bytes + at, vector, sizeof(float) * DIM))
        at++;
    CHECK(at + (long)sizeof(float) * DIM <= size && fseek(file, at, SEEK_SET) == 0);
    CHECK(fputc(bytes[at] ^ 1, file) != EOF && fclose(file) == 0);
    free(bytes);
}

static float number(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 16777216.0f - 0.5f;
}

static double distance(const float *a, const float *b) {
    double sum = 0;
    for (int j = 0; j < DIM; j++) sum += ((double)a[j] - b[j]) * ((double)a[j] - b[j]);
    return sqrt(sum);
}

struct last {
    omen_index *index;
    const float *queries;
    omen_status status;
    pthread_key_t key;
};

static void search_last(void *context) {
    struct last *last = context;
    int64_t found[K];
    double distances[K];
    uint64_t counts[1];
    last->status = omen_search(last->index, last->queries, 1, K, NULL, found, distances, counts);
}

static void *search_first(void *context) {
    struct last *last = context;
    CHECK(pthread_setspecific(last->key, last) == 0);
    search_last(last);
    OK(last->status);
    last->status = OMEN_FAULT;
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 2); /* a file that may be written */
    CHECK(omen_abi_version() == OMEN_ABI_VERSION);
    CHECK(strchr(omen_version(), '.') != NULL);
    CHECK(omen_last_error()[0] == '\0');
    CHECK(sizeof(omen_options) == 24 && offsetof(omen_options, metric) == 16);
    CHECK(sizeof(omen_search_options) == 80 && offsetof(omen_search_options, dtype) == 76);
    CHECK(sizeof(omen_graph_options) == 16 && sizeof(omen_recall_row) == 24);
    CHECK(sizeof(omen_recall_report) == 64 && sizeof(omen_statistics) == 64);

    uint32_t seed = 1;
    struct record *records = calloc(ROWS, sizeof *records);
    float *queries = calloc(QUERIES * DIM, sizeof *queries);
    int64_t *ids = calloc(ROWS, sizeof *ids);
    CHECK(records && queries && ids);
    for (int i = 0; i < ROWS; i++) {
        ids[i] = 10 * i;
        for (int j = 0; j < DIM; j++) records[i].vector[j] = number(&seed);
    }
    for (int i = 0; i < QUERIES * DIM; i++) queries[i] = number(&seed);

    /* Half of the rows are copied, half used where they lie. */
    omen_options options = OMEN_OPTIONS_INIT;
    options.row_stride = sizeof(struct record);
    omen_index *index = NULL;
    OK(omen_create(DIM, &options, &index));
    OK(omen_set_threads(index, 1));
    struct record *lent = malloc(ROWS / 2 * sizeof *lent);
    CHECK(lent);
    memcpy(lent, records, ROWS / 2 * sizeof *lent);
    OK(omen_add(index, lent, ROWS / 2, ids));
    free(lent);
    OK(omen_borrow(index, records + ROWS / 2, ROWS / 2, ids + ROWS / 2));
    uint64_t len = 0, dim = 0;
    OK(omen_len(index, &len));
    OK(omen_dim(index, &dim));
    CHECK(len == ROWS && dim == DIM);

    int64_t found[QUERIES * K], again[QUERIES * K];
    double distances[QUERIES * K];
    uint64_t counts[QUERIES];
    OK(omen_search(index, queries, QUERIES, K, NULL, found, distances, counts));
    for (int q = 0; q < QUERIES; q++) {
        CHECK(counts[q] == K);
        for (int i = 0; i < K; i++) {
            const float *row = records[found[q * K + i] / 10].vector;
            CHECK(fabs(distance(queries + q * DIM, row) - distances[q * K + i]) < 1e-9);
        }
        int nearer = 0;
        for (int i = 0; i < ROWS; i++)
            nearer += distance(queries + q * DIM, records[i].vector) < distances[q * K + K - 1];
        CHECK(nearer == K - 1);
    }

    /* A call on one thread starts none; the index's number counts where the call has none of its own. */
    omen_search_options search = OMEN_SEARCH_OPTIONS_INIT;
    int64_t *nearest = malloc(sizeof(int64_t) * ROWS);
    double *nearness = malloc(sizeof(double) * ROWS);
    uint64_t *ones = malloc(sizeof(uint64_t) * ROWS);
    CHECK(nearest && nearness && ones);
    search.row_stride = sizeof(struct record);
    int alone = threads();
    OK(omen_search(index, records, ROWS, 1, &search, nearest, nearness, ones));
    CHECK(threads() == alone);
    OK(omen_set_threads(index, 2));
    OK(omen_search(index, records, ROWS, 1, &search, nearest, nearness, ones));
    CHECK(alone == 0 || threads() > alone);
    OK(omen_set_threads(index, 0));
    search.row_stride = 0;

    /* Filters: every third row by bits, then by ids; queries in double precision with a stride. */
    uint8_t bits[(ROWS + 7) / 8] = {0}, exact[QUERIES];
    int64_t third[ROWS / 3];
    for (int i = 0; i < ROWS; i += 3) {
        bits[i / 8] |= (uint8_t)(1 << i % 8);
        third[i / 3] = ids[i];
    }
    double wide[QUERIES][DIM + 1];
    for (int q = 0; q < QUERIES; q++)
        for (int j = 0; j < DIM; j++) wide[q][j] = queries[q * DIM + j];
    search.filter_bits = bits;
    search.n_filter_bytes = sizeof bits;
    search.exact = exact;
    OK(omen_search(index, queries, QUERIES, K, &search, found, distances, counts));
    omen_search_options by_ids = OMEN_SEARCH_OPTIONS_INIT;
    by_ids.filter_ids = third;
    by_ids.n_filter_ids = ROWS / 3;
    by_ids.dtype = OMEN_F64;
    by_ids.row_stride = sizeof wide[0];
    by_ids.threads = 1;
    OK(omen_search(index, wide, QUERIES, K, &by_ids, again, distances, counts));
    CHECK(memcmp(found, again, sizeof found) == 0);
    for (int i = 0; i < QUERIES * K; i++) CHECK(found[i] % 30 == 0);
    for (int q = 0; q < QUERIES; q++) CHECK(exact[q] == 1);

    struct met met = {0, 0, 0};
    OK(omen_search_radius(index, queries, QUERIES, 0.5, NULL, meet, &met));
    CHECK(met.queries == 2 && met.rows > 0 && met.farthest <= 0.5);

    /* A graph, and the effort for a recall. */
    omen_graph_options graph = OMEN_GRAPH_OPTIONS_INIT;
    graph.seed = 7;
    OK(omen_build_graph(index, &graph));
    omen_recall_row table[4];
    omen_recall_report report = OMEN_RECALL_REPORT_INIT;
    report.table = table;
    report.table_capacity = 4;
    OK(omen_tune(index, 0.9, K, NULL, 0, NULL, &report));
    CHECK(report.recall > 0.8 && report.lower_bound <= report.recall && report.effort >= K);
    CHECK(report.table_len > 0 && table[0].effort > 0 && table[0].queries_per_second > 0);
    CHECK(report.size == sizeof report);
    search.method = OMEN_GRAPH;
    search.filter_bits = NULL;
    search.n_filter_bytes = 0;
    search.effort = 64;
    OK(omen_search(index, queries, QUERIES, K, &search, found, distances, counts));
    for (int q = 0; q < QUERIES; q++) CHECK(exact[q] == 0);

    /* Edits. */
    OK(omen_update(index, ids, records + 1, 1)); /* the first row becomes as the second */
    OK(omen_remove(index, ids + 1, 1));
    OK(omen_search(index, records[1].vector, 1, 1, NULL, found, distances, counts));
    CHECK(found[0] == 0 && distances[0] == 0);
    OK(omen_ids(index, again, QUERIES * K, &len) != OMEN_OK ? OMEN_OK : OMEN_FAULT); /* no room */
    int64_t *all = calloc(ROWS, sizeof *all);
    OK(omen_ids(index, all, ROWS, &len));
    CHECK(len == ROWS - 1 && all[0] == 0 && all[1] == 20);
    omen_statistics stats = OMEN_STATISTICS_INIT;
    OK(omen_stats(index, &stats));
    CHECK(stats.len == ROWS - 1 && stats.dim == DIM && stats.has_graph == 1 && stats.nbytes > 0);
    CHECK(stats.metric == OMEN_EUCLIDEAN && stats.dtype == OMEN_F32);
    CHECK(stats.effort == report.effort);

    /* A call that is stopped changes nothing. */
    int asked = 0;
    OK(omen_set_threads(index, 1));
    OK(omen_set_cancel(index, stop, &asked));
    omen_status stopped = omen_build_graph(index, &graph);
    CHECK((stopped == OMEN_CANCELLED) == (asked > 0)); /* a fast machine is done before it asks */
    OK(omen_set_cancel(index, NULL, NULL));
    OK(omen_set_threads(index, 0));

    /* A long call asks, and stops; a callback that searches is not asked by that search. */
    omen_index *same = NULL;
    struct asked deep = {0};
    float *slow = malloc(sizeof(float) * DIM * ROWS);
    CHECK(slow);
    for (int i = 0; i < ROWS; i++) memcpy(slow + DIM * i, records[i].vector, sizeof(float) * DIM);
    omen_options by_sums = OMEN_OPTIONS_INIT;
    by_sums.metric = OMEN_MANHATTAN;
    OK(omen_create(DIM, &by_sums, &same));
    for (int copies = 0; copies < 40; copies++) OK(omen_borrow(same, slow, ROWS, NULL));
    OK(omen_set_threads(same, 1));
    OK(omen_set_cancel(same, search_again, &deep));
    deep.index = same;
    deep.queries = slow;
    CHECK(omen_search(same, slow, ROWS, 1, NULL, nearest, nearness, ones) == OMEN_CANCELLED);
    CHECK(deep.times == 1 && deep.deepest == 1);
    OK(omen_free(same));
    free(slow);
    free(nearest);
    free(nearness);
    free(ones);

    /* To a file and back. */
    OK(omen_save(index, argv[1]));
    OK(omen_load(argv[1], 1, &same));
    OK(omen_search(index, queries, QUERIES, K, NULL, found, distances, counts));
    double loaded[QUERIES * K];
    OK(omen_search(same, queries, QUERIES, K, NULL, again, loaded, counts));
    CHECK(memcmp(found, again, sizeof found) == 0);
    CHECK(memcmp(distances, loaded, sizeof distances) == 0);
    OK(omen_free(same));

    /* A damaged file is found out when it is opened, or when its rows are first needed. */
    damage(argv[1], records[ROWS - 1].vector);
    CHECK(omen_load(argv[1], 1, &same) == OMEN_DAMAGED);
    OK(omen_load(argv[1], 0, &same));
    found[0] = -7;
    CHECK(omen_search(same, queries, QUERIES, K, NULL, found, loaded, counts) == OMEN_DAMAGED);
    CHECK(found[0] == -7);
    OK(omen_free(same));

    /* An index keeps its number type where it has no rows. */
    options.row_stride = 0;
    options.dtype = OMEN_F64;
    OK(omen_create(DIM, &options, &same));
    OK(omen_save(same, argv[1]));
    OK(omen_free(same));
    OK(omen_load(argv[1], 1, &same));
    stats.size = sizeof stats;
    OK(omen_stats(same, &stats));
    CHECK(stats.len == 0 && stats.dtype == OMEN_F64);
    OK(omen_free(same));

    /* Vectors may be longer than memory where there are none. */
    OK(omen_create((uint64_t)1 << 40, NULL, &same));
    OK(omen_search(same, NULL, 0, 1, NULL, found, distances, counts));
    OK(omen_free(same));

    /* A thread may search while it ends. */
    pthread_t thread;
    pthread_key_t key;
    CHECK(pthread_key_create(&key, search_last) == 0);
    struct last last = {index, queries, OMEN_FAULT, key};
    CHECK(pthread_create(&thread, NULL, search_first, &last) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    OK(last.status);

    /* Handles that are none, and a message. */
    CHECK(omen_free(same) == OMEN_INVALID_HANDLE);
    CHECK(omen_len(same, &len) == OMEN_INVALID_HANDLE);
    CHECK(omen_len((omen_index *)(void *)records, &len) == OMEN_INVALID_HANDLE);
    omen_index *next = NULL; /* where the last one was */
    OK(omen_create(DIM, NULL, &next));
    CHECK(next != same && omen_len(same, &len) == OMEN_INVALID_HANDLE);
    CHECK(omen_free(same) == OMEN_INVALID_HANDLE);
    OK(omen_free(next));

    /* Numbers that stand for nothing, and rows that lie in each other. */
    for (int32_t wrong = -1; wrong < 99; wrong += 50) {
        omen_options made = OMEN_OPTIONS_INIT;
        made.metric = wrong;
        CHECK(omen_create(DIM, &made, &next) == OMEN_INVALID_ARGUMENT);
        made.metric = OMEN_COSINE;
        made.dtype = wrong;
        CHECK(omen_create(DIM, &made, &next) == OMEN_INVALID_ARGUMENT);
        by_ids.dtype = wrong;
        CHECK(omen_search(index, wide, 2, 1, &by_ids, found, distances, counts) ==
              OMEN_INVALID_ARGUMENT);
        by_ids.dtype = OMEN_F64;
        by_ids.method = wrong;
        CHECK(omen_search(index, wide, 2, 1, &by_ids, found, distances, counts) ==
              OMEN_INVALID_ARGUMENT);
        by_ids.method = OMEN_AUTO;
    }
    options.row_stride = DIM * sizeof(double) - 1;
    CHECK(omen_create(DIM, &options, &next) == OMEN_INVALID_ARGUMENT);
    by_ids.row_stride = DIM * sizeof(double) - 1;
    CHECK(omen_search(index, wide, 2, 1, &by_ids, found, distances, counts) ==
          OMEN_INVALID_ARGUMENT);
    CHECK(strstr(omen_last_error(), "at least 64 bytes") != NULL);
    CHECK(omen_load("/no/such/file", 0, &same) == OMEN_FILE);
    CHECK(strstr(omen_last_error(), "/no/such/file") != NULL);
    queries[3] = NAN;
    CHECK(omen_search(index, queries, 1, 1, NULL, found, distances, counts) == OMEN_BAD_NUMBER);
    CHECK(strstr(omen_last_error(), "row 0 of the queries") != NULL);
    OK(omen_free(NULL));
    OK(omen_free(index));
    free(all);
    free(ids);
    free(queries);
    free(records);
    puts("every function works");
    return 0;
}
