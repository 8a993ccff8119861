/* Process 1: it starts the image's command, forwards signals to it, reaps, and ends as it ends. It reads no byte of a
   connection: a session of its own does, so that no request can end the container. */
#define _GNU_SOURCE
#include "guest.h"
#include "kept.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char first_directory[4096];
const char *working_directory = "/";

void fail(const char *what) {
  dprintf(2, "boilerhouse: %s: %s\n", what, strerror(errno));
}

/* It appears under its name when it accepts connections: one between bind and listen would be refused. */
static int listen_at(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (snprintf(address.sun_path, sizeof address.sun_path, "%s.new", path) >= (int)sizeof address.sun_path) return -1;
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0) return -1;
  unlink(address.sun_path);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0 ||
      rename(address.sun_path, path) < 0) {
    close(listener);
    return -1;
  }
  return listener;
}

static pid_t start_main(char **command) {
  pid_t pid = fork();
  if (pid != 0) return pid;
  restore_signals();
  setpgid(0, 0);
  if (isatty(0)) {
    signal(SIGTTOU, SIG_IGN);
    tcsetpgrp(0, getpid());
    signal(SIGTTOU, SIG_DFL);
  }
  execvp(command[0], command);
  int error = errno;
  dprintf(2, "boilerhouse: exec %s failed: %s\n", command[0], strerror(error));
  _exit(error == ENOENT || error == ENOTDIR ? 127 : 126);
}

static void accept_one(int listener, int signals) {
  int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (connection < 0) return;
  struct ucred peer = {.pid = -1};
  socklen_t size = sizeof peer;
  getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size);
  if (peer.pid == 0) { /* from outside of this namespace of processes */
    int control, slot = take_slot(&control);
    if (slot < 0) {
      refuse(connection, AT_LIMIT, EBUSY);
    } else {
      pid_t pid = fork();
      if (pid == 0) {
        close(listener);
        close(signals);
        own_slot = slot;
        own_control = control;
        serve(connection);
      }
      if (pid < 0) refuse(connection, AT_FORK, errno);
      name_session(slot, pid);
      if (control >= 0) close(control);
    }
  }
  close(connection);
}

/* The status of the main process once it has ended, else -1. */
static int reap(pid_t main_process) {
  int status, ended = -1;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    if (pid == main_process) ended = status;
    forget_session(pid);
  }
  return ended;
}

static void forward(int signals, pid_t main_process) {
  struct signalfd_siginfo info;
  while (read(signals, &info, sizeof info) == sizeof info)
    if (info.ssi_signo != SIGCHLD) kill(main_process, (int)info.ssi_signo);
}

static int run(const char *path, char **command) {
  sigset_t handled;
  sigfillset(&handled);
  const int left[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS, SIGTTIN, SIGTTOU};
  for (size_t at = 0; at < sizeof left / sizeof *left; at++) sigdelset(&handled, left[at]);
  sigprocmask(SIG_SETMASK, &handled, NULL);
  int signals = signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) return fail("signalfd"), 125;
  if (getcwd(first_directory, sizeof first_directory)) working_directory = first_directory;
  make_slots();
  int listener = path ? listen_at(path) : -1;
  if (path && listener < 0) fail("the guest agent serves nothing"); /* the host then uses the engine */
  pid_t main_process = start_main(command);
  if (main_process < 0) return fail("fork"), 125;
  struct pollfd ends[2] = {{signals, POLLIN, 0}, {listener, POLLIN, 0}};
  for (;;) {
    if (poll(ends, 2, -1) < 0 && errno != EINTR) return fail("poll"), 125;
    if (ends[0].revents) forward(signals, main_process);
    int status = reap(main_process);
    if (status != -1) return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (ends[1].revents) accept_one(listener, signals);
  }
}

int main(int count, char **words) {
  if (count == 2 && !strcmp(words[1], "version")) return printf("%d\n", PROTOCOL) < 0;
  if (count >= 5 && !strcmp(words[1], "init") && !strcmp(words[3], "--")) return run(words[2], words + 4);
  dprintf(2, "usage: %s init SOCKET -- COMMAND...\n       %s version\n", words[0], words[0]);
  return 2;
}
