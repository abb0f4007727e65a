/* What the tests run over several clones: each rank adds its part of pi, all learn the sum, and the first prints it with
 * everybody's host name. A wrong sum, or ranks that cannot speak to one another, end with an error. */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#define STEPS 200000

int main(int argc, char **argv) {
  int rank, ranks, length;
  char name[MPI_MAX_PROCESSOR_NAME] = "";
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  MPI_Get_processor_name(name, &length);

  double part = 0, pi = 0;
  for (int step = rank; step < STEPS; step += ranks) {
    double x = (step + 0.5) / STEPS;
    part += 4 / (1 + x * x) / STEPS;
  }
  MPI_Allreduce(&part, &pi, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);

  char *names = malloc((size_t)ranks * sizeof name);
  MPI_Gather(name, sizeof name, MPI_CHAR, names, sizeof name, MPI_CHAR, 0, MPI_COMM_WORLD);
  if (rank == 0) {
    for (int other = 0; other < ranks; other++)
      printf("rank %d on %s\n", other, names + (size_t)other * sizeof name);
    printf("pi %.9f\n", pi);
  }
  MPI_Finalize();
  return fabs(pi - M_PI) < 1e-9 ? 0 : 1;
}
