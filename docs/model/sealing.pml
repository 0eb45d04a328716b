/*
 * Sealing, versions and attempts, where several replicas share a database.
 *
 * One session. Each replica decides on what it remembers, which may be stale, and writes by
 * comparing versions. The network may deliver any call at any time, at any replica, again and again:
 * a replica may receive whichever call a trainer or an operator could ever have made, so that delay,
 * duplication and reordering need no model of their own. Answers are lost where a replica crashes
 * after its commit.
 *
 * A value is the number of the order that it comes from, plus one: a wrong law shows as a wrong
 * number. Actions are named as in the code; README.md beside this file says how to run it.
 *
 * -DMUTATE_... seeds a fault that the checker must find.
 */

#ifndef REPLICAS
#define REPLICAS 2
#endif
#ifndef STEPS
#define STEPS 2
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif
#ifndef ORDERS
#define ORDERS 2
#endif
#define NEVER 15      /* the step of what is not there */
#define KEYS ATTEMPTS /* restarts that want an attempt: one more than there is room for */

#define SEAL 1   /* core/commands.py: Seal */
#define REPORT 2 /* core/commands.py: Report */
#define ACT 3    /* core/commands.py: Act */
#define OPEN 4   /* runtime/work.py: Open */
#define FIND 5   /* runtime/work.py: Find */

/* store/schema.py: the row of the session */
typedef Row {
	byte version;
	byte attempt;
	byte key; /* of the running attempt; the first one has none */
	byte horizon;
	byte orders; /* how many were given: the id of the newest */
	byte at[ORDERS + 1];
};
typedef Values { byte v[STEPS] };

Row row;
Values sealed[ATTEMPTS + 1];   /* by attempt: what is sealed in it, with the past that it shares */
Values readings[ATTEMPTS + 1]; /* how often the reading of a step is counted */
bool opened[KEYS + 1];         /* the table `attempts`: keys that were used */

/* runtime/writer.py: what each process remembers */
Row cache[REPLICAS];
Values tail[REPLICAS];
bool known[REPLICAS];

/* What callers were told; no process sees it. */
Values given[ATTEMPTS + 1]; /* P1: by attempt and step, 0 for nothing yet */
byte told_at[ORDERS + 1];   /* P2: the step that the answer to an action has named */
byte acknowledged;          /* the newest version that any answer came from */
byte wanted[KEYS + 1];      /* the step of the checkpoint that each restart has loaded */

/* P6: what the attempt before had at each step, and how many orders there were. */
Values earlier[ATTEMPTS + 1];
byte orders_before[ATTEMPTS + 1];

/* core/timeline.py: the law at a step is the order with the latest `at`, of several the newest */
inline law(step_, result) {
	result = 1; j = 1; best = 0;
	do
	:: j <= cache[r].orders ->
		if
		:: cache[r].at[j] <= step_ && cache[r].at[j] >= best -> best = cache[r].at[j]; result = j + 1
		:: else
		fi;
		j++
	:: else -> break
	od;
	j = 0; best = 0
}

inline copy(one, other) {
	one.version = other.version; one.attempt = other.attempt; one.key = other.key;
	one.horizon = other.horizon; one.orders = other.orders;
	j = 0;
	do :: j <= ORDERS -> one.at[j] = other.at[j]; j++ :: else -> break od;
	j = 0
}

/* store/store.py: load */
inline load() {
	copy(cache[r], row);
	j = 0;
	do :: j < STEPS -> tail[r].v[j] = sealed[row.attempt].v[j]; j++ :: else -> break od;
	j = 0;
	known[r] = true
}

/* What a process remembers is gone with it. */
inline forget() {
	known[r] = false;
	cache[r].version = 0; cache[r].attempt = 0; cache[r].key = 0;
	cache[r].horizon = 0; cache[r].orders = 0;
	j = 0;
	do :: j <= ORDERS -> cache[r].at[j] = 0; j++ :: else -> break od;
	j = 0;
	do :: j < STEPS -> tail[r].v[j] = 0; j++ :: else -> break od;
	j = 0
}

/* A value is given to a trainer, which names its attempt. */
inline give(attempt_, step_, value_) {
	/* P3: durable before visible */
	assert(sealed[attempt_].v[step_] == value_);
	/* P1: one step, one value */
	assert(given[attempt_].v[step_] == 0 || given[attempt_].v[step_] == value_);
	given[attempt_].v[step_] = value_
}

/* The answer to an action names one step, whoever asks, and however often. */
inline tell(order_, step_) {
	assert(told_at[order_] == NEVER || told_at[order_] == step_);
	told_at[order_] = step_
}

inline acknowledge(version_) {
	if :: version_ > acknowledged -> acknowledged = version_ :: else fi
}

/* core/decide.py: Seal; runtime/trainer.py gives what is sealed already without the writer */
inline seal() {
	if
	:: step < cache[r].horizon -> give(attempt, step, tail[r].v[step])
	:: step == cache[r].horizon ->
		law(step, value);
		/* P2, P7: the running attempt alone seals, and only what is not sealed */
		assert(attempt == row.attempt);
		assert(step == row.horizon);
		assert(sealed[attempt].v[step] == 0);
		/* P6: it is what the attempt before had, unless an operator has ordered something since */
		if
		:: earlier[attempt].v[step] != 0 ->
			j = orders_before[attempt] + 1;
			do
			:: j <= row.orders -> if :: row.at[j] <= step -> best = 1 :: else fi; j++
			:: else -> break
			od;
			assert(best == 1 || value == earlier[attempt].v[step]);
			j = 0; best = 0
		:: else
		fi;
#ifdef MUTATE_ANSWER_BEFORE_COMMIT
		assert(given[attempt].v[step] == 0 || given[attempt].v[step] == value);
		given[attempt].v[step] = value;
		if :: true :: forget(); goto idle fi; /* a crash after the answer */
#endif
		sealed[attempt].v[step] = value;
		cache[r].horizon = step + 1;
		tail[r].v[step] = value;
		changed = true
	:: else /* StepOutOfRangeError */
	fi
}

/* core/decide.py: Report; the table of readings takes each once */
inline report() {
	if
	:: step < cache[r].horizon ->
		/* P7: an old attempt does not report */
		assert(attempt == row.attempt);
#ifdef MUTATE_COUNT_AGAIN
		readings[attempt].v[step]++;
#else
		readings[attempt].v[step] = 1;
#endif
		assert(readings[attempt].v[step] == 1) /* P4: counted once */
	:: else /* StepOutOfRangeError */
	fi
}

/* core/orders.py: an order holds from the horizon on; repeated under its key it is told again */
inline act() {
	if
	:: order <= cache[r].orders -> tell(order, cache[r].at[order])
	:: order == cache[r].orders + 1 ->
#ifdef MUTATE_ORDER_BELOW_HORIZON
		value = (cache[r].horizon > 0 -> cache[r].horizon - 1 : 0);
#else
		value = cache[r].horizon;
#endif
		/* P2: it changes no step that is sealed, and none of it replaces another */
		assert(order == row.orders + 1);
		assert(value >= row.horizon);
		cache[r].orders = order;
		cache[r].at[order] = value;
		changed = true
	:: else
	fi
}

/* runtime/batch.py: `_open` */
inline open() {
	if
	:: key == cache[r].key -> value = cache[r].attempt; /* joins it */
		value = 0
	:: key != cache[r].key && opened[key] /* SupersededAttemptError */
	:: key != cache[r].key && !opened[key] && step <= cache[r].horizon && cache[r].attempt < ATTEMPTS ->
		opened[key] = true;
		/* The past is shared: what was trained before the step stays what it was. */
		j = 0;
		do
		:: j < STEPS ->
			if
			:: j < step -> sealed[row.attempt + 1].v[j] = sealed[row.attempt].v[j]
			:: else ->
				earlier[row.attempt + 1].v[j] = sealed[row.attempt].v[j];
				tail[r].v[j] = 0
			fi;
			j++
		:: else -> break
		od;
		orders_before[row.attempt + 1] = row.orders;
#ifdef MUTATE_RESUME_BY_NEWEST_LAW
		j = 1;
		do
		:: j <= cache[r].orders ->
			if :: cache[r].at[j] > step -> cache[r].at[j] = step :: else fi; j++
		:: else -> break
		od;
#endif
		j = 0;
		cache[r].attempt = cache[r].attempt + 1;
		cache[r].key = key;
		cache[r].horizon = step;
		changed = true
	:: else /* AttemptRefusedError */
	fi
}

/* runtime/writer.py: a call is received, decided on what memory holds, committed, and published */
proctype Writer(byte r) {
	byte kind, attempt, step, order, key, value, j, best;
	bool changed;

receive:
	atomic {
		/* Whichever call: */
		if
		:: kind = SEAL :: kind = REPORT :: kind = ACT :: kind = OPEN :: kind = FIND
		:: known[r] -> forget(); goto idle /* or it crashes, at rest */
		fi;
		if
		:: kind == SEAL || kind == REPORT ->
			/* only who was told of an attempt speaks for it, and only what was given is reported. */
			select(attempt : 1 .. row.attempt);
			select(step : 0 .. (STEPS - 1));
			if
			:: kind == REPORT && given[attempt].v[step] == 0 -> goto idle
			:: else
			fi
		:: kind == ACT -> select(order : 1 .. ORDERS)
		:: kind == OPEN ->
			select(key : 1 .. KEYS);
			if
			:: wanted[key] == NEVER ->
				/* A checkpoint is of a step that was given to somebody. */
				select(step : 0 .. STEPS);
				if
				:: step > 0 && given[row.attempt].v[step - 1] == 0 -> goto idle
				:: else -> wanted[key] = step
				fi
			:: else -> step = wanted[key]
			fi
		:: kind == FIND
		fi;
		if :: !known[r] -> load() :: else fi;
#ifndef MUTATE_NO_VERSION_COMPARE
		/* store/writing.py: ConflictError; nothing is kept, and the session is read again */
		if :: cache[r].version != row.version -> forget(); goto idle :: else fi;
#endif
		if
#ifndef MUTATE_NO_FENCE
		:: (kind == SEAL || kind == REPORT) && attempt != cache[r].attempt -> goto idle /* StaleAttemptError */
		:: kind == SEAL && attempt == cache[r].attempt -> seal()
		:: kind == REPORT && attempt == cache[r].attempt -> report()
#else
		:: kind == SEAL -> seal()
		:: kind == REPORT -> report()
#endif
		:: kind == ACT -> act()
		:: kind == OPEN -> open()
		:: kind == FIND
		fi;
		if
		:: changed ->
			cache[r].version = row.version + 1;
			/* The attempt only rises, and the version by one. */
			assert(cache[r].attempt >= row.attempt);
			copy(row, cache[r])
		:: else -> acknowledge(cache[r].version); goto idle
		fi
	}
	/* The change is committed; other replicas go on, and hear of it before its caller does. */
	atomic {
		if
		:: kind == SEAL -> give(attempt, step, value); acknowledge(cache[r].version)
		:: kind == ACT -> tell(order, value); acknowledge(cache[r].version)
		:: kind == OPEN -> acknowledge(cache[r].version)
		:: forget() /* a crash after the commit: it is kept, and its caller does not know */
		fi;
idle:
		kind = 0; attempt = 0; step = 0; order = 0; key = 0; value = 0; changed = false
	}
	goto receive
}

/* runtime/trainer.py: `_found`; calls that need no writer */
proctype Reader(byte r) {
	byte step;

receive:
	if
	:: /* What its own attempt has sealed is given to a trainer without a check: `_is_enough`. */
		atomic {
			known[r];
			select(step : 0 .. (STEPS - 1));
			if
			:: step < cache[r].horizon -> give(cache[r].attempt, step, tail[r].v[step])
			:: else
			fi;
			step = 0
		}
	:: /* Who looks at a session has its version compared: `Writer.find`, which else asks the writer. */
		atomic {
			known[r];
#ifndef MUTATE_LOOK_WITHOUT_CHECK
			cache[r].version == row.version;
#endif
			/* What is shown is not older than what anybody was told before this call began. */
			assert(cache[r].version >= acknowledged)
		}
	fi;
	goto receive
}

init {
	byte i;
	atomic {
		row.version = 1; row.attempt = 1; acknowledged = 1;
		i = 1;
		do :: i <= ORDERS -> told_at[i] = NEVER; row.at[i] = NEVER; i++ :: else -> break od;
		i = 1;
		do :: i <= KEYS -> wanted[i] = NEVER; i++ :: else -> break od;
		i = 0;
		do
		:: i < REPLICAS -> run Writer(i); run Reader(i); i++
		:: else -> break
		od;
		i = 0
	}
}
