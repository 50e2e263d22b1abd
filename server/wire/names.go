package wire

// The names that stand in JSON frames, each at the index of its number. An empty name belongs to no number.
var (
	typeNames = [...]string{
		TypeConnect: "connect", TypeWelcome: "welcome", TypeMessage: "message", TypeAck: "ack", TypeCursor: "cursor",
		TypePing: "ping", TypePong: "pong", TypeGap: "gap", TypeKick: "kick", TypeGoaway: "goaway",
		TypeRecall: "recall", TypeEvent: "event", TypeRefresh: "refresh", TypeError: "error",
		TypeTags: "tags",
	}
	startNames  = [...]string{Resumed: "resumed", Beginning: "beginning", AtHead: "head", Reset: "reset"}
	cursorNames = [...]string{
		CursorCaughtUp: "caught_up", CursorPassed: "passed", CursorGoodbye: "goodbye", CursorLineage: "lineage",
	}
	gapNames   = [...]string{GapLimit: "limit", GapReset: "reset", GapLost: "lost"}
	eventNames = [...]string{Displayed: "displayed", Clicked: "clicked"}
	dutyNames  = [...]string{ComeBack: "come_back", RenewToken: "renew_token", StayAway: "stay_away"}
)

// String returns the frame's name, the "type" of its JSON form; "unknown" for a number that has none.
func (t Type) String() string { return nameOf(typeNames[:], t) }

// ParseType returns the type of that name; ok is false if there is none.
func ParseType(s string) (t Type, ok bool) { return numberOf[Type](typeNames[:], s) }

// String returns the start's name as the welcome frame writes it.
func (s Start) String() string { return nameOf(startNames[:], s) }

// String returns the reason's name as the cursor frame writes it.
func (r CursorReason) String() string { return nameOf(cursorNames[:], r) }

// String returns the reason's name as the gap frame writes it.
func (r GapReason) String() string { return nameOf(gapNames[:], r) }

// String returns the kind's name as the event frame writes it.
func (k EventKind) String() string { return nameOf(eventNames[:], k) }

// String returns the duty's name, as api/testdata/close.json writes it.
func (d Duty) String() string { return nameOf(dutyNames[:], d) }

func nameOf[T ~uint8](names []string, n T) string {
	if int(n) < len(names) && names[n] != "" {
		return names[n]
	}
	return "unknown"
}

func numberOf[T ~uint8](names []string, s string) (T, bool) {
	if s == "" {
		return 0, false
	}
	for i, n := range names {
		if n == s {
			return T(i), true
		}
	}
	return 0, false
}
