package wire

import (
	"encoding/binary"

	"carillon/server/nextversion"
	"carillon/server/push"
)

// appendBinary writes every frame but the message.
func appendBinary(dst []byte, f Frame) []byte {
	dst = append(dst, byte(f.Type()))
	switch f := f.(type) {
	case *Connect:
		dst = appendVarint(dst, f.Version)
		dst = appendText(dst, f.Token)
		dst = appendText(dst, f.Cursor)
		dst = appendText(dst, f.Client)
		dst = appendVarint(dst, f.After)
	case *Welcome:
		dst = appendVarint(dst, f.Version)
		dst = appendVarint(dst, f.Session)
		dst = appendText(dst, f.Cursor)
		dst = append(dst, byte(f.Own), byte(f.Common))
		dst = appendVarint(dst, f.HeartbeatMillis)
		dst = appendVarint(dst, f.GraceMillis)
		dst = appendVarint(dst, f.FrameBytes)
		dst = appendVarint(dst, f.FramesPerSecond)
		dst = appendMoment(dst, f.Time)
		dst = appendMoment(dst, f.Expires)
	case *Ack:
		dst = appendText(dst, f.Cursor)
	case *Cursor:
		dst = appendText(dst, f.Cursor)
		dst = append(dst, byte(f.Reason))
	case *Gap:
		dst = append(dst, byte(f.Slot))
		dst = appendVarint(dst, f.From)
		dst = appendVarint(dst, f.To)
		dst = append(dst, byte(f.Reason))
	case *Kick:
		dst = appendVarint(dst, f.Code)
		dst = appendText(dst, f.Reason)
		dst = appendText(dst, f.Detail)
		dst = appendText(dst, f.By)
		dst = appendText(dst, f.On)
	case *Goaway:
		dst = appendVarint(dst, f.Code)
		dst = appendText(dst, f.Reason)
		dst = appendVarint(dst, f.DelayMillis)
		dst = appendText(dst, f.Address)
	case *Recall:
		dst = append(dst, byte(f.Slot))
		dst = appendVarint(dst, f.Pos)
		dst = appendVarint(dst, uint64(f.ID))
	case *Event:
		dst = append(dst, byte(f.Event))
		dst = appendVarint(dst, uint64(f.ID))
		dst = appendMoment(dst, f.Time)
	case *Refresh:
		dst = appendText(dst, f.Token)
		dst = appendMoment(dst, f.Expires)
	case *Error:
		dst = appendText(dst, f.Code)
		dst = appendText(dst, f.Detail)
	case *Tags:
		for _, tags := range [...][]push.Tag{f.Join, f.Leave, f.Tags} {
			dst = appendVarint(dst, uint64(len(tags)))
			for _, t := range tags {
				dst = appendText(dst, t)
			}
		}
	}
	return append(dst, nextversion.Part...)
}

func appendBinaryPrefix(dst []byte, slot push.SlotKind, pos push.Position) []byte {
	dst = append(dst, byte(TypeMessage), byte(slot))
	if slot == push.NoSlot {
		return dst
	}
	return appendVarint(dst, pos)
}

// flagBinaryBody is the bit of a message's flags that says that its body is any bytes. A reader passes over the others.
const flagBinaryBody = 1

func appendBinaryTail(dst []byte, m *push.Message) []byte {
	dst = appendVarint(dst, uint64(m.ID))
	dst = appendMoment(dst, m.Created)
	if m.Persistent {
		dst = appendMoment(dst, m.Expires)
	} else {
		dst = append(dst, 0)
	}
	var flags byte
	if m.Kind == push.BodyBinary {
		flags = flagBinaryBody
	}
	dst = append(dst, flags)
	dst = appendText(dst, m.Ref)
	dst = appendText(dst, m.CollapseKey)
	dst = appendVarint(dst, uint64(len(m.Headers)))
	for _, h := range m.Headers {
		dst = appendText(dst, h.Name)
		dst = appendText(dst, h.Value)
	}
	dst = appendVarint(dst, uint64(len(m.Body)))
	return append(append(dst, m.Body...), nextversion.Part...)
}

func appendVarint[T ~uint16 | ~uint32 | ~uint64](dst []byte, n T) []byte {
	return binary.AppendUvarint(dst, uint64(n))
}

func appendMoment(dst []byte, t push.MilliTime) []byte {
	return binary.AppendUvarint(dst, uint64(max(t, 0)))
}

func appendText[T ~string](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
