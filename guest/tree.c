/* The processes of a command, of which a session is the subreaper: what loses its parent becomes the session's child. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

int watch_children(void) {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  int children = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (children < 0) _exit(0);
  return children;
}

void reap_children(struct command *command) {
  struct signalfd_siginfo info;
  struct rusage used;
  int status;
  pid_t pid;
  while (read(command->children, &info, sizeof info) > 0) continue;
  while ((pid = wait4(-1, &status, WNOHANG, &used)) > 0) {
    if (pid != command->pid) continue;
    command->has_ended = 1;
    command->status = status;
    command->used = used;
  }
}

static void signal_children(int number) {
  FILE *list = fopen("/proc/thread-self/children", "re");
  if (!list) return;
  int pid;
  while (fscanf(list, "%d", &pid) == 1) kill(pid, number);
  fclose(list);
}

void kill_tree(struct command *command) {
  int64_t until = now_ms() + KILL_MS;
  if (!command->has_ended) kill(-command->pid, SIGKILL);
  do {
    signal_children(SIGSTOP); /* none of these starts another one meanwhile */
    signal_children(SIGKILL);
    reap_children(command);
    siginfo_t info;
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD) return;
    poll(&(struct pollfd){command->children, POLLIN, 0}, 1, 10);
  } while (now_ms() < until);
}

struct end end_of(const struct command *command) {
  int status = command->status, by = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  struct timeval user = command->used.ru_utime, system = command->used.ru_stime;
  return (struct end){
      .code = (uint32_t)(by ? 128 + by : WEXITSTATUS(status)),
      .signal = (uint8_t)by,
      .is_late = (uint8_t)command->is_late,
      .cpu_ms = (uint32_t)((user.tv_sec + system.tv_sec) * 1000 + (user.tv_usec + system.tv_usec) / 1000),
  };
}

void put_end(uint8_t to[END_BYTES], const struct end *end) {
  put_u32(to, end->code);
  to[4] = end->signal;
  to[5] = end->is_late;
  put_u32(to + 6, end->cpu_ms);
}
