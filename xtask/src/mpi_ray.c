/* A ray tracer over several clones, for the benchmark `work`: mirrors over a chequered floor. Each rank traces every
 * n-th row and sends it to the first, which adds up the picture and prints the sum: the same however many ranks there
 * are. Usage: mpi-ray WIDTH HEIGHT SAMPLES, with SAMPLES x SAMPLES rays for a pixel. */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
  double x, y, z;
} vec;
typedef struct {
  vec centre;
  double radius, mirror;
} ball;

static const ball balls[] = {
    {{-1.2, 0.8, 4.5}, 0.8, 0.6}, {{0.6, 0.6, 3.4}, 0.6, 0.4}, {{1.9, 1.1, 5.2}, 1.1, 0.7},
    {{-0.3, 0.3, 2.6}, 0.3, 0.2}, {{-2.6, 0.5, 3.6}, 0.5, 0.5}, {{0.2, 1.9, 6.5}, 1.2, 0.8},
};
#define BALLS ((int)(sizeof balls / sizeof balls[0]))
#define DEPTH 5

static vec add(vec a, vec b) { return (vec){a.x + b.x, a.y + b.y, a.z + b.z}; }
static vec scale(vec a, double by) { return (vec){a.x * by, a.y * by, a.z * by}; }
static vec sub(vec a, vec b) { return add(a, scale(b, -1)); }
static double dot(vec a, vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
static vec unit(vec a) { return scale(a, 1 / sqrt(dot(a, a))); }

/* The nearest ball (its number), or the floor (BALLS), or the sky (-1). */
static int hit(vec from, vec to, double *far) {
  int found = -1;
  *far = 1e9;
  for (int at = 0; at < BALLS; at++) {
    vec away = sub(from, balls[at].centre);
    double half = dot(away, to);
    double left = half * half - dot(away, away) + balls[at].radius * balls[at].radius;
    if (left <= 0) continue;
    double here = -half - sqrt(left);
    if (here > 1e-6 && here < *far) *far = here, found = at;
  }
  if (to.y < -1e-9 && -from.y / to.y > 1e-6 && -from.y / to.y < *far) *far = -from.y / to.y, found = BALLS;
  return found;
}

static double light_of(vec from, vec to, int depth) {
  static const vec sun = {0.48, 0.8, -0.36};
  double far, shadow;
  int at = hit(from, to, &far);
  if (at < 0) return 0.3 + 0.6 * (to.y > 0 ? to.y : 0);
  vec place = add(from, scale(to, far));
  vec normal = at < BALLS ? unit(sub(place, balls[at].centre)) : (vec){0, 1, 0};
  place = add(place, scale(normal, 1e-5));
  double light = dot(normal, sun), mirror = at < BALLS ? balls[at].mirror : 0.15;
  double own = at < BALLS ? 0.8 : (((int)floor(place.x) + (int)floor(place.z)) & 1) ? 0.9 : 0.2;
  if (light < 0 || hit(place, sun, &shadow) >= 0) light = 0;
  light = own * (0.15 + 0.85 * light);
  if (depth == 0) return light;
  vec back = sub(to, scale(normal, 2 * dot(to, normal)));
  return (1 - mirror) * light + mirror * light_of(place, unit(back), depth - 1);
}

static void trace(int row, int width, int height, int samples, unsigned char *pixels) {
  for (int column = 0; column < width; column++) {
    double sum = 0;
    for (int ray = 0; ray < samples * samples; ray++) {
      double x = column + (ray % samples + 0.5) / samples, y = row + (ray / samples + 0.5) / samples;
      vec to = {(2 * x - width) / height, 0.2 + (height - 2 * y) / height, 2};
      sum += light_of((vec){0, 1, -1}, unit(to), DEPTH);
    }
    double shade = 255 * sum / (samples * samples);
    pixels[column] = shade > 255 ? 255 : (unsigned char)shade;
  }
}

int main(int argc, char **argv) {
  int rank, ranks;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  int width = argc > 1 ? atoi(argv[1]) : 0, height = argc > 2 ? atoi(argv[2]) : 0;
  int samples = argc > 3 ? atoi(argv[3]) : 0;
  if (width < 1 || height < 1 || samples < 1 || width > 8192 || height > 8192 || samples > 16) {
    if (rank == 0) fprintf(stderr, "usage: mpi-ray WIDTH HEIGHT SAMPLES\n");
    MPI_Finalize();
    return 2;
  }
  unsigned char *pixels = malloc((size_t)width);
  unsigned long long sum = 0;
  double from = MPI_Wtime();
  for (int row = 0; row < height; row++) {
    if (row % ranks == rank) {
      trace(row, width, height, samples, pixels);
      if (rank != 0) MPI_Send(pixels, width, MPI_UNSIGNED_CHAR, 0, row, MPI_COMM_WORLD);
    } else if (rank == 0) {
      MPI_Recv(pixels, width, MPI_UNSIGNED_CHAR, row % ranks, row, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    for (int column = 0; rank == 0 && column < width; column++) sum += pixels[column] * (1ULL + column + row);
  }
  if (rank == 0) printf("picture %llu of %d ranks in %.3f s\n", sum, ranks, MPI_Wtime() - from);
  MPI_Finalize();
  return 0;
}
