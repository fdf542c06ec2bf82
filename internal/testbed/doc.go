// Package testbed makes hosts out of namespaces on one machine, makes a
// Wherry cluster of them, and breaks them on demand.
//
// A host is a process tree of its own: a small init process in its own PID,
// mount, network, UTS, IPC and cgroup namespace, with private /run,
// /var/lib/wherry, /etc, /var and /root/.kube, joined by a veth to a switch
// that lives in a network namespace of the testbed too. No link, address or
// route of the machine is touched, and no host reaches beyond the switch.
// Killing the init is pulling the plug: the kernel ends everything in the host
// at once, its mounts, links and /run go with it, and what was on its disk
// (/etc, /var) is there when it is powered on again.
//
// All that must be known of a testbed is in its directory and in names that
// follow from the directory's path, so every later command finds it and Down
// removes it, whatever process died in between.
//
// A program that brings testbeds up must call [Host] first thing in main when
// [IsHost] says so: the hosts' init is that program, started once more.
package testbed
