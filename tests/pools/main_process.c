/* The main process of test images from scratch: it does what its first word says, and prints what it sees. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *word;

static void show(const char *text) {
  dprintf(1, "%s\n", text);
}

static void end_on(int number) {
  dprintf(1, "got %d\n", number);
  _exit(30 + number);
}

static void wait_for_ever(void) {
  show("ready");
  for (;;) pause();
}

static void ends(int code) {
  show("out");
  dprintf(2, "err\n");
  _exit(code);
}

static void traps(void) {
  for (int number = 1; number < 32; number++)
    if (number != SIGCHLD && number != SIGKILL && number != SIGSTOP) signal(number, end_on);
  wait_for_ever();
}

static void shows_itself(void) {
  char line[256];
  FILE *file = fopen("/proc/self/status", "r");
  printf("%d %d %d %d\n", (int)getuid(), (int)getgid(), getpgrp() == getpid(), isatty(0));
  while (file && fgets(line, sizeof line, file))
    if (!strncmp(line, "Sig", 3) && strncmp(line, "SigQ", 4)) printf("%s", line);
  for (int at = 0; at < 10; at++) printf("%d", fcntl(at, F_GETFD) >= 0);
  printf("\n%s\n", getcwd(line, sizeof line));
  fflush(stdout);
  _exit(0);
}

static void forks(void) { /* what it leaves ends with it */
  if (!fork()) {
    sleep(2);
    show("late");
    _exit(0);
  }
  ends(5);
}

static void daemonises(void) {
  if (fork()) _exit(0);
  setsid();
  if (fork()) _exit(0);
  sleep(2);
  show("late");
  _exit(0);
}

static void leaves_orphans(void) { /* it never waits for them; process 1 does */
  for (int at = 0; at < 20; at++) {
    if (fork()) continue;
    if (!fork()) _exit(0);
    _exit(0);
  }
  while (wait(NULL) > 0) continue;
  usleep(300 * 1000);
  int zombies = 0;
  for (int pid = 1; pid < 100; pid++) {
    char path[32], line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) continue;
    if (fgets(line, sizeof line, file) && strstr(line, ") Z ")) zombies++;
    fclose(file);
  }
  dprintf(1, "%d zombies\n", zombies);
  _exit(0);
}

int main(int count, char **words) {
  word = count > 1 ? words[1] : "";
  int number = count > 2 ? atoi(words[2]) : 0;
  if (!strcmp(word, "ends")) ends(number);
  if (!strcmp(word, "dies")) kill(getpid(), number), pause();
  if (!strcmp(word, "traps")) traps();
  if (!strcmp(word, "ignores")) signal(SIGTERM, SIG_IGN), wait_for_ever();
  if (!strcmp(word, "waits")) wait_for_ever();
  if (!strcmp(word, "shows")) shows_itself();
  if (!strcmp(word, "forks")) forks();
  if (!strcmp(word, "daemonises")) daemonises();
  if (!strcmp(word, "orphans")) leaves_orphans();
  return 99;
}
