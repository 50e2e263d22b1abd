package wire

import (
	"encoding/base64"

	"carillon/server/nextversion"
	"carillon/server/push"
)

// appendJSON writes every frame but the message.
func appendJSON(dst []byte, f Frame) []byte {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, f.Type().String()...)
	dst = append(dst, '"')
	switch f := f.(type) {
	case *Connect:
		dst = appendUint(dst, `,"version":`, f.Version)
		dst = optString(dst, `,"token":`, f.Token)
		dst = optString(dst, `,"cursor":`, f.Cursor)
		dst = optString(dst, `,"client":`, f.Client)
		if f.After != 0 {
			dst = appendQuoted(dst, `,"after":`, uint64(f.After))
		}
	case *Welcome:
		dst = appendWelcome(dst, f)
	case *Ack:
		dst = optString(dst, `,"cursor":`, f.Cursor)
	case *Cursor:
		dst = optString(dst, `,"cursor":`, f.Cursor)
		dst = appendName(dst, `,"reason":`, f.Reason.String())
	case *Gap:
		dst = appendUint(dst, `,"slot":`, f.Slot)
		dst = appendUint(dst, `,"from":`, f.From)
		dst = appendUint(dst, `,"to":`, f.To)
		dst = appendName(dst, `,"reason":`, f.Reason.String())
	case *Kick:
		dst = appendUint(dst, `,"code":`, f.Code)
		dst = optString(dst, `,"reason":`, f.Reason)
		dst = optString(dst, `,"detail":`, f.Detail)
		dst = optString(dst, `,"by":`, string(f.By))
		dst = optString(dst, `,"on":`, f.On)
	case *Goaway:
		dst = appendUint(dst, `,"code":`, f.Code)
		dst = optString(dst, `,"reason":`, f.Reason)
		if f.DelayMillis != 0 {
			dst = appendUint(dst, `,"delay_ms":`, f.DelayMillis)
		}
		dst = optString(dst, `,"address":`, f.Address)
	case *Recall:
		dst = appendUint(dst, `,"slot":`, f.Slot)
		dst = appendUint(dst, `,"pos":`, f.Pos)
		dst = appendQuoted(dst, `,"id":`, uint64(f.ID))
	case *Event:
		dst = appendName(dst, `,"event":`, f.Event.String())
		dst = appendQuoted(dst, `,"id":`, uint64(f.ID))
		dst = optTime(dst, `,"time":`, f.Time)
	case *Refresh:
		dst = optString(dst, `,"token":`, f.Token)
		dst = optTime(dst, `,"expires":`, f.Expires)
	case *Error:
		dst = optString(dst, `,"code":`, f.Code)
		dst = optString(dst, `,"detail":`, f.Detail)
	case *Tags:
		dst = optTags(dst, `,"join":`, f.Join)
		dst = optTags(dst, `,"leave":`, f.Leave)
		dst = optTags(dst, `,"tags":`, f.Tags)
	}
	return append(append(dst, nextversion.Member...), '}')
}

func optTags(dst []byte, name string, tags []push.Tag) []byte {
	if len(tags) == 0 {
		return dst
	}
	dst = append(dst, name...)
	before := byte('[')
	for _, t := range tags {
		dst = appendString(append(dst, before), string(t))
		before = ','
	}
	return append(dst, ']')
}

func appendWelcome(dst []byte, f *Welcome) []byte {
	dst = appendUint(dst, `,"version":`, f.Version)
	dst = appendQuoted(dst, `,"session":`, uint64(f.Session))
	dst = optString(dst, `,"cursor":`, f.Cursor)
	dst = appendName(dst, `,"own":`, f.Own.String())
	dst = appendName(dst, `,"common":`, f.Common.String())
	dst = appendUint(dst, `,"heartbeat_ms":`, f.HeartbeatMillis)
	dst = appendUint(dst, `,"grace_ms":`, f.GraceMillis)
	dst = appendUint(dst, `,"frame_bytes":`, f.FrameBytes)
	dst = appendUint(dst, `,"frames_per_second":`, f.FramesPerSecond)
	dst = appendTime(dst, `,"time":`, f.Time)
	return optTime(dst, `,"expires":`, f.Expires)
}

// appendJSONPrefix writes a message up to where its tail begins.
func appendJSONPrefix(dst []byte, slot push.SlotKind, pos push.Position) []byte {
	dst = append(dst, `{"type":"message",`...)
	if slot == push.NoSlot {
		return dst
	}
	dst = appendUint(dst, `"slot":`, slot)
	dst = appendUint(dst, `,"pos":`, pos)
	return append(dst, ',')
}

// appendJSONTail writes the rest. The body of kind JSON goes out as it is: it was checked and compacted when it was
// accepted. One without bytes is left out, since no JSON value is empty.
func appendJSONTail(dst []byte, m *push.Message) []byte {
	dst = appendQuoted(dst, `"id":`, uint64(m.ID))
	dst = appendTime(dst, `,"time":`, m.Created)
	if m.Persistent {
		dst = optTime(dst, `,"expires":`, m.Expires)
	}
	dst = optString(dst, `,"ref":`, m.Ref)
	dst = optString(dst, `,"collapse_key":`, m.CollapseKey)
	if len(m.Headers) > 0 {
		dst = append(dst, `,"headers":{`...)
		for i, h := range m.Headers {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, h.Name)
			dst = append(dst, ':')
			dst = appendString(dst, h.Value)
		}
		dst = append(dst, '}')
	}
	if m.Kind == push.BodyBinary {
		dst = append(dst, `,"body_base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, m.Body)
		dst = append(dst, '"')
	} else if len(m.Body) > 0 {
		dst = append(dst, `,"body":`...)
		dst = append(dst, m.Body...)
	}
	return append(append(dst, nextversion.Member...), '}')
}
