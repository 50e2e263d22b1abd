package swarm

// counting is what a phase counts.
type counting struct {
	phase  uint32
	how    Counting
	expect int // clients that a message of CountAll reaches
	report Report

	// CountAll: of message seq, how many clients have it, at seq modulo MaxUnderWay.
	ring []ringCount
	done []uint64 // to be told

	// CountEach.
	untold uint64
	toldAt int64
}

type ringCount struct {
	seq  uint64
	have int
}

// message counts one message at one client.
func (k *counting) message(payload []byte, now int64) {
	m, ok := findMark(payload)
	if !ok || m.Phase != k.phase {
		k.report.Others++
		return
	}
	k.report.Messages++
	k.report.Latency.add(now - m.Sent)
	switch k.how {
	case CountEach:
		k.untold++
	case CountAll:
		if k.ring == nil {
			k.ring = make([]ringCount, MaxUnderWay)
		}
		r := &k.ring[m.Seq%MaxUnderWay]
		if r.seq != m.Seq {
			*r = ringCount{seq: m.Seq}
		}
		if r.have++; r.have == k.expect {
			k.done = append(k.done, m.Seq)
		}
	}
}

// tell tells the news, if there are any and it is time.
func (k *counting) tell(l *loop, now int64) {
	if len(k.done) > 0 {
		l.answer(&Answer{Done: k.done})
		k.done = k.done[:0]
	}
	if k.untold > 0 && (k.untold >= arrivedBatch || now >= k.toldAt+int64(arrivedEvery)) {
		l.answer(&Answer{Received: k.untold})
		k.untold, k.toldAt = 0, now
	}
}
