/* SPDX-License-Identifier: MIT */
/*
 * The protocol of arch/x86/split_lock.c on one core, checked in all interleavings: two threads, each of which runs
 * guests that split locks, joins and ends passes, takes kicks, goes offline and comes back; a policy that changes; a
 * timer that ends passes. The names are those of the C code; each atomic block is what its lock holds together, or one
 * atomic access. Counters are left out.
 */
#ifndef CHANGES
#define CHANGES 1 /* of the policy, in all */
#endif
#define STEPS	2 /* of each thread */
#define EXITS	1 /* of a guest before its instruction is executed */

#define OFF 0
#define ON  1

byte machine_generation;
byte machine_state = ON;
byte changes;

bool hardware; /* bit 29 of the register */
byte followed; /* generation */
byte followed_state = ON;
byte passes, epoch, nr_threads;
bool owned; /* the core's lock */

bool kicked[2], operator_done;
byte my_epoch[2];
byte asked, executed;
/* What the holder of the lock read of the machine's word. */
byte word_generation;
byte word_state;

#define IN_PASS(me) (passes > 0 && my_epoch[me] == epoch)

/* Whenever the lock is given back, the register agrees with what the core follows, and with its pass. */
inline unlock()
{
	atomic {
		assert(hardware == (nr_threads > 0 && followed_state == ON && passes == 0));
		assert(passes <= nr_threads && (followed_state == ON || passes == 0));
		word_generation = 0;
		word_state = 0;
		owned = false
	}
}

inline lock()
{
	atomic {
		!owned -> owned = true
	}
}

/*
 * The lock is held. The machine's word is read once; it may change before the register is written, as it may in C. A
 * write only where something changes: a joiner never toggles.
 */
inline settle()
{
	atomic {
		word_generation = machine_generation;
		word_state = machine_state
	}
	atomic {
		if
		:: word_state != ON -> passes = 0
		:: else
		fi;
		hardware = nr_threads > 0 && word_state == ON && passes == 0;
		followed = word_generation;
		followed_state = word_state
	}
}

inline pass_begin(me, open)
{
	lock();
	settle();
	open = passes > 0 || hardware;
	if
	:: open && !IN_PASS(me) ->
		if
		:: passes == 0 -> epoch = epoch + 1
		:: else
		fi;
		passes++;
		my_epoch[me] = epoch;
		settle()
	:: else
	fi;
	unlock()
}

inline pass_end(me)
{
	if
	:: my_epoch[me] != 0 ->
		lock();
		if
		:: IN_PASS(me) ->
			passes--;
			if
			:: passes == 0 -> settle()
			:: else
			fi
		:: else
		fi;
		my_epoch[me] = 0;
		unlock()
	:: else
	fi
}

inline refresh()
{
	if
	:: followed != machine_generation ->
		lock();
		settle();
		unlock()
	:: else
	fi
}

inline take_kick(me)
{
	if
	:: kicked[me] -> kicked[me] = false; refresh()
	:: else
	fi
}

/* A guest's instruction that splits a lock. */
inline guest(me, open)
{
	asked++;
	exits = EXITS;
	do
	:: hardware ->
		/* #AC */
		pass_begin(me, open);
		if
		:: exits > 0 -> exits--; take_kick(me) /* an exit, before it is executed */
		:: exits > 0 -> exits--; pass_end(me)  /* the vCPU leaves this CPU, and comes back */
		:: true
		fi
	:: atomic { !hardware -> executed++ } ->
		break
	od;
	pass_end(me)
}

inline leave(me)
{
	pass_end(me);
	lock();
	nr_threads--;
	settle();
	unlock()
}

inline join(me)
{
	lock();
	nr_threads++;
	settle();
	unlock()
}

/* The deadline: the timer of a thread that is in the pass. */
inline expire()
{
	lock();
	if
	:: passes > 0 -> passes = 0; settle()
	:: else
	fi;
	unlock()
}

proctype thread(byte me)
{
	byte steps, exits;
	bool open;

	join(me);
	do
	:: steps < STEPS ->
		steps++;
		take_kick(me);
		if
		:: true -> guest(me, open)
		:: true -> expire()
		:: true -> leave(me); join(me)
		fi
	:: steps == STEPS -> break
	od;
	assert(!IN_PASS(me));
	/* It has heard of all changes once its kicks are taken. */
	operator_done;
	take_kick(me);
	assert(followed == machine_generation && followed_state == machine_state);
	leave(me)
}

/* The operator, and Corbel itself when it takes a split lock of its own. */
proctype operator()
{
	do
	:: changes < CHANGES ->
		atomic {
			changes++;
			machine_state = 1 - machine_state;
			machine_generation++
		}
		kicked[0] = true;
		kicked[1] = true
	:: true -> break
	od;
	operator_done = true
}

init {
	pid n = _nr_pr;

	atomic {
		run thread(0);
		run thread(1);
		run operator()
	}
	_nr_pr == n;
	assert(executed == asked); /* no instruction was lost */
	assert(passes == 0 && nr_threads == 0 && !hardware && !owned);
}
