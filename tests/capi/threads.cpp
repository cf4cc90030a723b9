// Eight threads search one index while another edits it, and then frees it under them. C++17.

#include <omendb.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr int dim = 16, rows = 4000, k = 10;

void check(bool truth, const char *what) {
    if (!truth) {
        std::fprintf(stderr, "not so: %s (%s)\n", what, omen_last_error());
        std::abort();
    }
}

std::vector<float> numbers(std::size_t count, unsigned seed) {
    std::vector<float> values(count);
    for (auto &value : values) {
        seed = seed * 1664525u + 1013904223u;
        value = static_cast<float>(seed >> 8) / 16777216.0f;
    }
    return values;
}

}  // namespace

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 20;  // of edits, and 25 searches for each
    const auto base = numbers(rows * dim, 1);
    omen_options options = OMEN_OPTIONS_INIT;
    options.metric = OMEN_COSINE;
    omen_index *index = nullptr;
    check(omen_create(dim, &options, &index) == OMEN_OK, "create");
    check(omen_borrow(index, base.data(), rows, nullptr) == OMEN_OK, "borrow");
    check(omen_build_graph(index, nullptr) == OMEN_OK, "build");

    std::atomic<int> searches{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 8; t++) {
        threads.emplace_back([&, t] {
            omen_search_options search = OMEN_SEARCH_OPTIONS_INIT;
            search.threads = 1 + t % 2;
            search.method = static_cast<omen_method>(t % 3);
            int64_t ids[2 * k];
            double distances[2 * k];
            uint64_t counts[2];
            for (unsigned i = 0;; i++) {
                const float *query = base.data() + (t * 499 + i) % (rows - 1) * dim;
                const auto status =
                    omen_search(index, query, 2, k, &search, ids, distances, counts);
                if (status == OMEN_INVALID_HANDLE) return;  // freed meanwhile
                check(status == OMEN_OK, "search");
                check(counts[0] == k && counts[1] == k, "full answers");
                for (int j = 1; j < k; j++) check(distances[j - 1] <= distances[j], "in order");
                searches++;
            }
        });
    }
    const auto more = numbers(100 * dim, 2);
    std::vector<int64_t> gone(100);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 100; i++) gone[i] = rows + 100 * round + i;
        check(omen_add(index, more.data(), 100, gone.data()) == OMEN_OK, "add");
        check(omen_remove(index, gone.data(), 100) == OMEN_OK, "remove");
    }
    while (searches < 25 * rounds) std::this_thread::yield();
    check(omen_free(index) == OMEN_OK, "free");
    check(omen_free(index) == OMEN_INVALID_HANDLE, "freed twice");
    for (auto &thread : threads) thread.join();
    std::puts("eight threads searched");
}
